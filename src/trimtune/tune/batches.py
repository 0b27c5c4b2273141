"""Rows into batches: alike lengths together, so that little is padding; the order follows from (seed, epoch) alone."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

_CHUNK = 50
"""batches that are sorted by length together: enough to pad little, few enough to keep the batches mixed"""


def order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """Batches of row indices for one epoch.

    The rows are shuffled, cut into chunks of 50 batches, sorted by length within each chunk (equal lengths keep their
    shuffled order), cut into batches, and the batches are shuffled.
    """
    draw = random.Random(f"{seed}/{epoch}")
    rows = list(range(len(lengths)))
    draw.shuffle(rows)
    step = batch_size * _CHUNK
    chunks = [sorted(rows[at:at + step], key=lengths.__getitem__) for at in range(0, len(rows), step)]
    batches = [chunk[at:at + batch_size] for chunk in chunks for at in range(0, len(chunk), batch_size)]
    draw.shuffle(batches)
    return batches


def plain_order(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The reference: shuffled rows cut into batches, whatever their lengths."""
    rows = list(range(len(lengths)))
    random.Random(f"{seed}/{epoch}").shuffle(rows)
    return [rows[at:at + batch_size] for at in range(0, len(rows), batch_size)]


def padding(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """The share of padding among all tokens of these batches, 0 to 1."""
    padded = sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[row] for batch in batches for row in batch) / padded


def pad(ids: Sequence[Sequence[int]], batch: Sequence[int], pad_id: int,
        device: torch.device | None = None) -> dict[str, torch.Tensor]:
    """`input_ids` and `attention_mask`, int64 [B, T], T the longest row of the batch; padded on the right."""
    import torch

    width = max(len(ids[row]) for row in batch)
    input_ids = torch.full((len(batch), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(batch), width), dtype=torch.long)
    for at, row in enumerate(batch):
        length = len(ids[row])
        input_ids[at, :length] = torch.as_tensor(ids[row], dtype=torch.long)
        mask[at, :length] = 1
    return {"input_ids": input_ids.to(device), "attention_mask": mask.to(device)}


def by_length(lengths: Sequence[int], batch_size: int) -> Iterator[list[int]]:
    """Batches for evaluation: sorted by length, every row once."""
    rows = sorted(range(len(lengths)), key=lengths.__getitem__)
    for at in range(0, len(rows), batch_size):
        yield rows[at:at + batch_size]
