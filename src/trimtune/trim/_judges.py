"""How far a changed model is from its parent, as validation rows tell: by a classifier's answers, a language model's tokens.

    damage   mean KL(parent ‖ changed) in nats, over some rows; of a language model over their learned tokens
    loss     what a limit is held against, over all rows: points of accuracy (`_mixing.Lost`), or percent of perplexity:

    percent = 100 (exp(1/N Σ_i (nll'_i − nll_i)) − 1)       nll, nll': of learned token i under parent and changed model
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

from trimtune import parts
from trimtune.study import language
from trimtune.tasks._inputs import Inputs, reading_in
from trimtune.tasks._perplexity import perplexity
from trimtune.trim import _mixing
from trimtune.tune.distilling import answers
from trimtune.tune.feeds import token_feed
from trimtune.tune.loop import scored

if TYPE_CHECKING:
    import torch

    from trimtune.tune.feeds import Feed
    from trimtune.tune.recovery import Setting

_TOGETHER, _CHUNK = 32, 128
"""rows that pass together; tokens whose probabilities are computed together"""


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
    loss: Callable[[], _mixing.Lost | Risen]
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
    some = range(0, len(rows.ids), ceil(len(rows.ids) / most))
    few, every = token_feed(module, task, _part(rows, some)), token_feed(module, task, rows)
    damage, loss, limit = (_tokens(module, task, few, every) if task.rows is language
                           else _answers(few, every, some, rows.targets))
    return Judge(damage, loss, len(rows.ids), len(some), limit)


Judged = tuple[Callable[[], float], Callable[[], "_mixing.Lost | Risen"], float]


def _answers(few: Feed, every: Feed, some: range, labels: list[int]) -> Judged:
    import torch

    parent_NC, labels_N = answers(every), torch.tensor(labels)
    return (lambda: _mixing.divergence(parent_NC[list(some)], answers(few)),
            lambda: _mixing.lost(parent_NC, answers(every), labels_N), 0.5)


def _tokens(module: torch.nn.Module, task: ModuleType, few: Feed, every: Feed) -> Judged:
    def nats() -> float:
        return -scored(module, every, task.score, _TOGETHER)

    parent_ND, weight_VD, before = answers(few), few.answered([0])[1], nats()

    def risen() -> Risen:
        after = nats()
        return Risen(100 * (perplexity(after - before) - 1), perplexity(after), perplexity(before), len(every.counts),
                     sum(every.counts))

    return lambda: token_divergence(parent_ND, answers(few), weight_VD), risen, 2.0


def token_divergence(parent_ND: torch.Tensor, changed_ND: torch.Tensor, weight_VD: torch.Tensor | None) -> float:
    """Mean KL(parent ‖ changed) in nats of states before an output layer [V, D]; of logits [N, V] where that is None."""
    total = 0.0
    for at in range(0, len(parent_ND), _CHUNK):
        one, other = (part if weight_VD is None else part @ weight_VD.t()
                      for part in (parent_ND[at:at + _CHUNK], changed_ND[at:at + _CHUNK]))
        total += len(one) * _mixing.divergence(one, other)
    return total / max(1, len(parent_ND))


def _part(rows: Inputs, chosen: range) -> Inputs:
    return replace(rows, ids=[rows.ids[row] for row in chosen], targets=[rows.targets[row] for row in chosen],
                   counts=[rows.counts[row] for row in chosen], numbers=[])
