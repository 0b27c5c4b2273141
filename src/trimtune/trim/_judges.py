"""How far a changed model is from its parent, as validation rows tell: by a classifier's answers, a language model's tokens.

    damage   mean KL(parent ‖ changed) in nats, over some rows; of a language model over their learned tokens
    loss     what a limit is held against, over all rows: points of accuracy, or percent of perplexity:

    percent = 100 (exp(1/N Σ_i (nll'_i − nll_i)) − 1)       nll, nll': of learned token i under parent and changed model
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from trimtune import parts
from trimtune.study import language
from trimtune.tasks._inputs import Inputs, reading_in
from trimtune.tasks._perplexity import perplexity
from trimtune.tune.distilling import answers
from trimtune.tune.feeds import token_feed
from trimtune.tune.loop import scored

if TYPE_CHECKING:
    import torch

    from trimtune.tune.feeds import Feed
    from trimtune.tune.recovery import Setting

_TOGETHER, _CHUNK = 32, 128
"""rows that pass together; tokens whose probabilities are computed together"""
_ONE_SIDED = 1.645
"""standard deviations: beyond them lie 5% of what chance gives"""


@dataclass(frozen=True)
class Lost:
    """What a changed model lost against its parent, over the same `rows`.

    Args:
        points: of accuracy (hundredths of the rows) that the parent's calibrated probabilities expect to be lost; never below 0.
        observed: points by the rows' labels.
        worse: rows that the parent alone has right.
        better: rows that the changed model alone has right.
        agreement: rows with the parent's answer, in points.
        divergence: mean KL(parent ‖ changed) in nats.
    """

    points: float
    observed: float
    worse: int
    better: int
    rows: int
    agreement: float
    divergence: float

    def within(self, limit: float) -> bool:
        """Whether no more than `limit` points are lost: not as expected, and not by the labels beyond what chance explains."""
        beyond = self.worse - self.better - self.rows * limit / 100
        return self.points <= limit and beyond <= _ONE_SIDED * math.sqrt(self.worse + self.better)

    def told(self, limit: float) -> str:
        return (f"{self.points:.2f} points lost as {self.rows} validation rows tell, {limit:g} allowed; "
                f"{self.worse} of them turned wrong and {self.better} right")


@dataclass(frozen=True)
class Risen:
    """What a changed language model lost against its parent, over the learned `tokens` of the same `rows`.

    Args:
        percent: by which the perplexity is higher; below 0 where it is lower.
        perplexity: of the changed model; `before` is the parent's.
    """

    percent: float
    perplexity: float
    before: float
    rows: int
    tokens: int

    def within(self, limit: float) -> bool:
        """Whether the perplexity rises by no more than `limit` percent."""
        return self.percent <= limit

    def told(self, limit: float) -> str:
        return (f"perplexity {self.percent:+.2f}% as {self.rows} validation rows tell, {limit:g}% allowed; "
                f"{self.before:.4g} became {self.perplexity:.4g}")


class Judge(NamedTuple):
    """Made of the parent; what it gives is of the same module as it has become."""

    damage: Callable[[], float]
    loss: Callable[[], Lost | Risen]
    rows: int
    damage_rows: int
    limit: float
    """what may be lost where nobody says otherwise"""


def judge_of(module: torch.nn.Module, source: Path, most: int, setting: Setting) -> Judge:
    """The judge of a model that was just loaded from `source`; `most` rows, evenly spaced, tell the damage.

    What is kept of a classifier's parent are its logits [N, C]; of a language model's the states before the learned tokens of
    the rows that tell the damage [N, D].
    """
    task = parts.load("task", setting.task)
    rows = task.inputs(task.load_tokenizer(source), task.rows.load(setting.rows).validation, setting.max_length, "validation",
                       **reading_in(source))
    some = range(0, len(rows.ids), math.ceil(len(rows.ids) / most))
    few, every = token_feed(module, task, _part(rows, some)), token_feed(module, task, rows)
    damage, loss, limit = (_tokens(module, task, few, every) if task.rows is language
                           else _answers(few, every, some, rows.targets))
    return Judge(damage, loss, len(rows.ids), len(some), limit)


Judged = tuple[Callable[[], float], Callable[[], Lost | Risen], float]


def _answers(few: Feed, every: Feed, some: range, labels: list[int]) -> Judged:
    import torch

    parent_NC, labels_N = answers(every), torch.tensor(labels)
    return (lambda: divergence(parent_NC[list(some)], answers(few)),
            lambda: lost(parent_NC, answers(every), labels_N), 0.5)


def _tokens(module: torch.nn.Module, task: ModuleType, few: Feed, every: Feed) -> Judged:
    def nats() -> float:
        return -scored(module, every, task.score, _TOGETHER)

    parent_ND, weight_VD, before = answers(few), few.answered([0])[1], nats()

    def risen() -> Risen:
        after = nats()
        return Risen(100 * (perplexity(after - before) - 1), perplexity(after), perplexity(before), len(every.counts),
                     sum(every.counts))

    return lambda: token_divergence(parent_ND, answers(few), weight_VD), risen, 2.0


def lost(parent_NC: torch.Tensor, changed_NC: torch.Tensor, labels_N: torch.Tensor) -> Lost:
    """Compare logits [N, C] of the same rows, whose labels are int64 [N].

    points = 100/N Σ_i (p_i[s_i] − p_i[t_i])    s_i, t_i: answers of parent and changed model, p_i: the parent's calibrated
    probabilities
    """
    share_NC = (sharpness(parent_NC, labels_N) * parent_NC.double()).softmax(-1)
    parent_N, changed_N = parent_NC.argmax(-1), changed_NC.argmax(-1)
    given_up_N = share_NC.gather(1, parent_N[:, None]) - share_NC.gather(1, changed_N[:, None])
    was_N, is_N, rows = parent_N == labels_N, changed_N == labels_N, len(labels_N)
    worse, better = int((was_N & ~is_N).sum()), int((is_N & ~was_N).sum())
    return Lost(100 * float(given_up_N.mean()), 100 * (worse - better) / rows, worse, better, rows,
                100 * float((parent_N == changed_N).double().mean()), divergence(parent_NC, changed_NC))


def sharpness(logits_NC: torch.Tensor, labels_N: torch.Tensor) -> float:
    """The factor on logits, 0.1 … 10, under which the labels are likeliest: so sure should the model be (1 / temperature)."""
    logits = logits_NC.double()
    true_N = logits.gather(1, labels_N[:, None]).squeeze(1)
    low, high = math.log(0.1), math.log(10)
    for _ in range(30):
        middle = (low + high) / 2
        slope = (((math.exp(middle) * logits).softmax(-1) * logits).sum(-1) - true_N).mean()  # of the mean loss, which is convex
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.exp((low + high) / 2)


def divergence(parent_NC: torch.Tensor, changed_NC: torch.Tensor) -> float:
    """Mean over the rows of KL(parent ‖ changed), in nats, of logits [N, C]."""
    log_parent_NC, log_changed_NC = parent_NC.double().log_softmax(-1), changed_NC.double().log_softmax(-1)
    return float((log_parent_NC.exp() * (log_parent_NC - log_changed_NC)).sum(-1).mean())


def token_divergence(parent_ND: torch.Tensor, changed_ND: torch.Tensor, weight_VD: torch.Tensor | None) -> float:
    """Mean KL(parent ‖ changed) in nats of states before an output layer [V, D]; of logits [N, V] where that is None."""
    total = 0.0
    for at in range(0, len(parent_ND), _CHUNK):
        one, other = (part if weight_VD is None else part @ weight_VD.t()
                      for part in (parent_ND[at:at + _CHUNK], changed_ND[at:at + _CHUNK]))
        total += len(one) * divergence(one, other)
    return total / max(1, len(parent_ND))


def _part(rows: Inputs, chosen: range) -> Inputs:
    return replace(rows, ids=[rows.ids[row] for row in chosen], targets=[rows.targets[row] for row in chosen],
                   counts=[rows.counts[row] for row in chosen], numbers=[])
