"""Buckets of shapes [B, T] for engines that choose kernels by shape: one row and several, times short rows and long ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

Shape = tuple[int, int]
_SHORT = 32
"""tokens: up to here rows are short, and have kernels of their own"""


class Bucket(NamedTuple):
    """Shapes [B, T] that share kernels, which are chosen for the usual one."""

    smallest: Shape
    usual: Shape
    largest: Shape


def buckets(batch: int, max_length: int, longest: int) -> tuple[Bucket, ...]:
    """Every shape up to [batch, longest] lies in exactly one of them.

    Args:
        batch: the most rows that run at once.
        max_length: tokens at which a study cuts its texts.
        longest: tokens that the model has positions for.
    """
    ends = sorted({min(end, longest) for end in (_SHORT, max_length, longest)})
    lengths = list(zip([1, *(end + 1 for end in ends[:-1])], ends, strict=True))
    batches = [(1, 1), (2, batch)] if batch > 1 else [(1, 1)]
    return tuple(Bucket((few, short), (many, long), (many, long)) for few, many in batches for short, long in lengths)


def fitting(found: Sequence[Bucket], rows: int, tokens: int) -> int | None:
    """The place of the bucket that holds [rows, tokens]; None if none does."""
    return next((at for at, (low, _, high) in enumerate(found)
                 if low[0] <= rows <= high[0] and low[1] <= tokens <= high[1]), None)


def longest_row(model: Any, max_length: int) -> int:
    """Tokens that a classifier has positions for, beside its virtual ones; `max_length` where it counts them otherwise."""
    config = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 1:
        return max_length
    first = (config.pad_token_id or 0) + 1 if "roberta" in config.model_type else 0  # RoBERTa counts from behind its padding
    adapters = getattr(model, "peft_config", {}).values()
    return int(positions - first - max((getattr(one, "num_virtual_tokens", None) or 0 for one in adapters), default=0))
