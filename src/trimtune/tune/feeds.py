"""What a fit is fed with: rows as tokens through the whole model, or as stored features through its head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune.tasks._inputs import Inputs
from trimtune.tune import batches, device, features, trainable

if TYPE_CHECKING:
    import torch

Answered = tuple["torch.Tensor", ...]


@dataclass
class Feed:
    """Rows that a model can be asked about.

    Args:
        lengths: tokens of each row.
        answered: for a list of row indices what the task's loss and score take: a model's answers, and the truth.
        counts: how much of each row is learned: 1, or so many tokens. A mean over rows is weighted by it.
        tokens: those that the rows use.
    """

    lengths: list[int]
    answered: Callable[[Sequence[int]], Answered]
    counts: list[int]
    tokens: frozenset[int] = frozenset()


def token_feeds(model: torch.nn.Module, task: ModuleType, folder: Path, splits: Any, max_length: int,
                reading: dict[str, Any] | None = None) -> tuple[Feed, Feed]:
    """Training and validation rows as tokens, through the whole model; the tokenizer lies in `folder`.

    Args:
        reading: what else decides how the task's rows become tokens (`reading` of the task).
    """
    tokenizer = task.load_tokenizer(folder)
    train, validation = (task.inputs(tokenizer, getattr(splits, name), max_length, name, **reading or {})
                         for name in ("train", "validation"))
    return token_feed(model, task, train), token_feed(model, task, validation)


def token_feed(model: torch.nn.Module, task: ModuleType, rows: Inputs) -> Feed:
    """Rows padded per batch, through the whole model."""

    def answered(batch: Sequence[int]) -> Answered:
        inputs = batches.pad(rows.ids, batch, rows.pad_id, device.of(model))
        found: Answered = task.answered(model, inputs, [rows.targets[row] for row in batch])
        return found

    return Feed(list(map(len, rows.ids)), answered, rows.counts, frozenset({rows.pad_id}).union(*rows.ids))


def feature_feeds(model: torch.nn.Module, folder: Path, splits: Any) -> tuple[Feed, Feed]:
    """Labelled rows as stored features, through the head alone."""
    import torch
    from safetensors.torch import load_file

    stored, head = load_file(folder / features.FILE), trainable.head_of(model)

    def feed(name: str, labels: Sequence[int]) -> Feed:
        truth = torch.tensor(labels)

        def answered(batch: Sequence[int]) -> Answered:
            logits = features.logits_of(head, stored[name][list(batch)].to(device.of(head)))
            return logits, truth[list(batch)].to(logits.device)

        return Feed([1] * len(labels), answered, [1] * len(labels))

    return feed("train", splits.train.labels), feed("validation", splits.validation.labels)
