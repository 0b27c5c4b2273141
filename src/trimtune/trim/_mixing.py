"""Layers in several number formats: what each format makes of a layer, what it costs in answers and in bytes, and the fewest
layers that must keep more bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trimtune.trim import _few_bits, _grids, binary, ternary

if TYPE_CHECKING:
    import torch

    Laid = Callable[[torch.Tensor, int], torch.Tensor]

GROUPS = {"int4": _grids.GROUP, **dict.fromkeys(("ternary", "binary"), _few_bits.Config().group)}
"""the inputs that share a scale where nothing else is asked for, as in the trims of these names"""
_SEEN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"int8": _grids.seen8, "int4": _grids.seen4}
"""how a layer of this format sees its inputs; others see them as they are"""
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


def lost(parent_NC: torch.Tensor, changed_NC: torch.Tensor, labels_N: torch.Tensor) -> Lost:
    """Compare logits [N, C] of the same rows, whose labels are int64 [N].

    points = 100/N Σ_i (p_i[s_i] − p_i[t_i]);  s_i, t_i: answers of parent and changed model,  p_i: the parent's probabilities
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


def on_grid(weight_NK: torch.Tensor, kind: str, group: int) -> torch.Tensor:
    """The weights that a layer of this format multiplies with, float32 [N, K]."""
    laid: dict[str, Laid] = {"float": lambda weight, _: weight, "int8": lambda weight, _: _grids.on_grid8(weight),
                             "int4": _grids.on_grid4, "ternary": ternary.quantize, "binary": binary.quantize}
    return laid[kind](weight_NK, group)


def takes(weight_NK: torch.Tensor, kind: str, group: int) -> bool:
    """Can a layer of this shape be in this format?"""
    return kind != "int4" or _grids.takes4(weight_NK, group)


def stored_bytes(shape: tuple[int, ...], kind: str, group: int) -> int:
    """What a matrix [N, K] takes on disk in this format, scales included."""
    rows, inputs = shape
    groups = inputs // group if group and inputs % group == 0 else 1
    row = {"float": 4 * inputs, "int8": inputs + 4, "int4": inputs // 2 + 4 * groups, "ternary": -(-inputs // 5) + 2 * groups,
           "binary": -(-inputs // 8) + 2 * groups}
    return rows * row[kind]


@contextmanager
def laid_out(layers: Mapping[str, torch.nn.Module], formats: Mapping[str, str], group: int) -> Iterator[None]:
    """While it lasts, these layers (linear ones and embeddings) multiply as in their formats: weights on the grid, inputs of
    linear layers as the engine's kernel sees them. Afterwards their weights are what they were."""
    import torch

    before: dict[str, torch.Tensor] = {name: layers[name].get_parameter("weight").data for name in formats}
    hooks = []
    try:
        for name, kind in formats.items():
            layers[name].weight.data = on_grid(before[name], kind, group)
            if kind in _SEEN and isinstance(layers[name], torch.nn.Linear):
                hooks.append(layers[name].register_forward_pre_hook(lambda _, inputs, see=_SEEN[kind]: (see(inputs[0]),)))
        yield
    finally:
        for name, weight in before.items():
            layers[name].weight.data = weight
        for hook in hooks:
            hook.remove()


def by_harm(damage: Mapping[str, float], saved: Mapping[str, int]) -> list[str]:
    """The names in the order in which they should keep more bits: by damage per saved byte, the highest first."""
    return sorted(damage, key=lambda name: damage[name] / saved[name], reverse=True)


def fewest(holds: Callable[[int], bool], most: int) -> int | None:
    """The fewest of 0 … `most` that hold, by halving: where so many hold, more are taken to hold as well. None: not even all."""
    if holds(0):
        return 0
    if not most or not holds(most):
        return None
    too_few, enough = 0, most
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if holds(middle) else (middle, enough)
    return enough
