"""What a fit is fed with: rows as tokens through the whole model, or as stored features through its head."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.study import data
from trimtune.tune import batches, device, features, trainable

if TYPE_CHECKING:
    import torch


@dataclass
class Feed:
    """Rows that a model can be asked about: `logits(rows)` is [B, C] for a list of row indices. `tokens` are those they use."""

    lengths: list[int]
    labels: torch.Tensor
    logits: Callable[[Sequence[int]], torch.Tensor]
    tokens: frozenset[int] = frozenset()

    def answered(self, rows: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits [B, C] and labels [B], where the model lies."""
        logits = self.logits(rows)
        return logits, self.labels[rows].to(logits.device)


def token_feed(model: torch.nn.Module, split: data.Split, tokenizer: Any, max_length: int) -> Feed:
    """Rows as tokens, padded per batch, through the whole model."""
    import torch

    ids = tokenizer(split.texts, truncation=True, max_length=max_length)["input_ids"]
    pad_id = tokenizer.pad_token_id

    def logits(batch: Sequence[int]) -> torch.Tensor:
        out: torch.Tensor = model(**batches.pad(ids, batch, pad_id, device.of(model))).logits
        return out

    return Feed([len(row) for row in ids], torch.tensor(split.labels), logits, frozenset({pad_id}).union(*ids))


def feature_feeds(model: torch.nn.Module, folder: Path, splits: data.Rows) -> tuple[Feed, Feed]:
    """Rows as stored features, through the head alone."""
    import torch
    from safetensors.torch import load_file

    stored, head = load_file(folder / features.FILE), trainable.head_of(model)

    def feed(name: str, split: data.Split) -> Feed:
        def logits(batch: Sequence[int]) -> torch.Tensor:
            return features.logits_of(head, stored[name][list(batch)].to(device.of(head)))

        return Feed([1] * len(split.labels), torch.tensor(split.labels), logits)

    return feed("train", splits.train), feed("validation", splits.validation)
