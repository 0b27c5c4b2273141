"""Rows of a language model laid one behind another, so that little of a batch is padding and no row sees another.

A line of a batch holds as many whole rows as fit into the length of the batch's longest row (first fit, the longest first;
Johnson et al. 1974, "Worst-case performance bounds for simple one-dimensional packing algorithms"). So packing never makes a
batch wider than padding does, nor its attention larger, and a forecast for padded rows holds for packed ones. Positions
begin at 0 with each row; where they do, transformers masks every row from the others (block-diagonal causal attention), in
sliding windows too:

    row      a a a b b | c c c c -        positions 0 1 2 0 1 | 0 1 2 3 0
    a token sees those of its own row that are not behind it

Padded rows are the reference. `keeps_apart` compares the two on a few rows of the very model: one that takes no positions (it
counts places in the line, as ALiBi does) or mixes neighbors otherwise is left unpacked. Virtual tokens stand once per line and
not once per row, so methods that have them are fitted unpacked as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.tune import batches, memory

if TYPE_CHECKING:
    import torch

WORTH = 0.1
"""of the positions that padding takes: what `auto` packs for"""


def chosen(asked: str, model: Any, packs: bool, lengths: Sequence[int], batch_size: int) -> bool:
    """Whether the rows of a fit are packed.

    Args:
        asked: `auto`, `on` or `off`. Auto: where batches of like lengths still leave so much padding that packing pays.
        packs: whether the task's rows may share a line.

    Raises:
        TrimtuneError: `on`, and this model or method can't.
    """
    if asked == "off" or (asked == "auto" and not packs):
        return False
    if asked == "auto" and saved(lengths, batches.order(lengths, batch_size, 0, 0)) < WORTH:
        return False
    why = _why_not(model, packs)
    if why and asked == "on":
        raise TrimtuneError(f"fit.packing: on was given, but these rows can't be packed: {why}.", "Allowed here: auto, off.",
                            "Leave packing out.")
    return not why


def _why_not(model: Any, packs: bool) -> str:
    if not packs:
        return "they are not those of a language model"
    if memory.virtual_tokens(model):
        return "the method's virtual tokens stand once per line, not once per row"
    return "" if keeps_apart(model) else f"{type(model).__name__} answers a row otherwise when others stand in its line"


def lines(lengths: Sequence[int], batch: Sequence[int]) -> list[list[int]]:
    """The rows of a batch in lines, none longer than its longest row: each row into the first line that has room for it."""
    width, found, room = max(lengths[row] for row in batch), list[list[int]](), list[int]()
    for row in sorted(batch, key=lambda row: -lengths[row]):
        at = next((at for at, left in enumerate(room) if lengths[row] <= left), None)
        if at is None:
            found.append([row])
            room.append(width - lengths[row])
        else:
            found[at].append(row)
            room[at] -= lengths[row]
    return found


def laid(ids: Sequence[Sequence[int]], lines_: Sequence[Sequence[int]], pad_id: int,
         device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """`input_ids` and `position_ids`, int64 [lines, T]; each padding token is a row of its own, that nothing sees.

    There is no `attention_mask`: with one, transformers would take the line for a single row.
    """
    import torch

    whole = [list(chain.from_iterable(ids[row] for row in line)) for line in lines_]
    input_ids = batches.pad(whole, range(len(whole)), pad_id)["input_ids"]
    positions = torch.zeros_like(input_ids)
    for at, line in enumerate(lines_):
        places = [torch.arange(len(ids[row])) for row in line]
        positions[at, :len(whole[at])] = torch.cat(places)
    return {"input_ids": input_ids.to(device), "position_ids": positions.to(device)}


def saved(lengths: Sequence[int], batches_: Sequence[Sequence[int]]) -> float:
    """The share of the padded positions of these batches that packing does without, 0 to 1."""
    padded = sum(len(batch) * max(lengths[row] for row in batch) for batch in batches_)
    packed = sum(len(lines(lengths, batch)) * max(lengths[row] for row in batch) for batch in batches_)
    return 1 - packed / padded


def keeps_apart(model: Any) -> bool:
    """Does this float32 model answer rows in one line as it answers them padded?"""
    import torch

    ids = [[(7 * row + at) % model.config.vocab_size for at in range(1, length + 1)] for row, length in enumerate((9, 5, 1, 3))]
    every, was_training = [*range(len(ids))], model.training
    place = next(model.parameters()).device
    with torch.no_grad():
        padded = model.eval()(**batches.pad(ids, every, 0, place), use_cache=False).logits
        whole = torch.cat([padded[row, :len(ids[row])] for row in every])
        try:
            together = model(**laid(ids, [every], 0, place), use_cache=False).logits[0]
            same = torch.allclose(together, whole, atol=1e-4)
        except (TypeError, ValueError, RuntimeError, LookupError):  # an architecture that takes no positions
            same = False
    model.train(was_training)
    return same
