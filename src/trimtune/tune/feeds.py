"""What a fit is fed with: rows as tokens through the whole model, or as stored features through its head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune.tasks._inputs import Inputs
from trimtune.tune import batches, device, features, packing, trainable

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
        packed: whether rows share the lines of a batch.
    """

    lengths: list[int]
    answered: Callable[[Sequence[int]], Answered]
    counts: list[int]
    tokens: frozenset[int] = frozenset()
    packed: bool = False

    def lines(self, batch: Sequence[int]) -> list[list[int]]:
        """The rows in each line of a batch's tensors, in the lines' order."""
        return packing.lines(self.lengths, batch) if self.packed else [[row] for row in batch]

    def positions(self, batch: Sequence[int]) -> int:
        """The tokens of a batch's tensors, padding included."""
        return len(self.lines(batch)) * max(self.lengths[row] for row in batch)


def token_feeds(model: torch.nn.Module, task: ModuleType, folder: Path, splits: Any, max_length: int,
                reading: dict[str, Any] | None = None, packing_: str = "off", batch_size: int = 0) -> tuple[Feed, Feed]:
    """Training and validation rows as tokens, through the whole model; the tokenizer lies in `folder`.

    Args:
        reading: what else decides how the task's rows become tokens (`reading` of the task).
        packing_: whether rows share lines: `auto`, `on` or `off`; `auto` decides for batches of `batch_size` training rows.
    """
    tokenizer = task.load_tokenizer(folder)
    train, validation = (task.inputs(tokenizer, getattr(splits, name), max_length, name, **reading or {})
                         for name in ("train", "validation"))
    packed = packing.chosen(packing_, model, getattr(task, "PACKS", False), list(map(len, train.ids)), batch_size)
    return token_feed(model, task, train, packed), token_feed(model, task, validation, packed)


def token_feed(model: torch.nn.Module, task: ModuleType, rows: Inputs, packed: bool = False) -> Feed:
    """Rows padded per batch, or packed, through the whole model."""

    def padded(batch: Sequence[int]) -> Answered:
        inputs = batches.pad(rows.ids, batch, rows.pad_id, device.of(model))
        found: Answered = task.answered(model, inputs, [rows.targets[row] for row in batch])
        return found

    def together(batch: Sequence[int]) -> Answered:
        lines = feed.lines(batch)
        inputs = packing.laid(rows.ids, lines, rows.pad_id, device.of(model))
        targets = [[target for row in line for target in rows.targets[row]] for line in lines]
        found: Answered = task.answered(model, inputs, targets)
        return found

    feed = Feed(list(map(len, rows.ids)), together if packed else padded, rows.counts,
                frozenset({rows.pad_id}).union(*rows.ids), packed)
    return feed


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
