"""Layers in several number formats: what each format makes of a layer, what it costs in bytes, and the fewest layers that
must keep more bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from trimtune.trim import _few_bits, _grids, binary, ternary

if TYPE_CHECKING:
    import torch

    Laid = Callable[[torch.Tensor, int], torch.Tensor]

GROUPS = {"int4": _grids.GROUP, **dict.fromkeys(("ternary", "binary"), _few_bits.Config().group)}
"""the inputs that share a scale where nothing else is asked for, as in the trims of these names"""
_SEEN: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {"int8": _grids.seen8, "int4": _grids.seen4}
"""how a layer of this format sees its inputs; others see them as they are"""


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
