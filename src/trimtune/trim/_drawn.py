"""Training rows that a trim looks at: drawn with the seed, in batches without padding."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import fields
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.tasks._inputs import Inputs, reading_in
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch


def drawn(rows: Path, count: int, seed: int, task: str = "text_classification") -> Any:
    """A split of `count` training rows, or all, in seeded order; `rows` is the folder of the data step."""
    train = parts.load("task", task).rows.load(rows).train
    order = random.Random(seed).sample(range(len(train)), min(count, len(train)))
    return type(train)(*([getattr(train, column.name)[row] for row in order] for column in fields(train)))


def inputs(source: Path, setting: Setting, count: int) -> Inputs:
    """The tokens of `count` drawn rows, as the tokenizer in `source` reads them."""
    part = parts.load("task", setting.task)
    found: Inputs = part.inputs(part.load_tokenizer(source), drawn(setting.rows, count, setting.seed, setting.task),
                                setting.max_length, **reading_in(source))
    return found


def of_equal_length(source: Path, setting: Setting, count: int) -> Iterator[tuple[torch.Tensor, list[Any]]]:
    """Token ids int64 [B, T] and targets of `count` drawn rows, the shortest first; the rows of a batch have T tokens each."""
    import torch

    rows = inputs(source, setting, count)
    for _, group in groupby(sorted(range(len(rows.ids)), key=lambda row: len(rows.ids[row])), lambda row: len(rows.ids[row])):
        alike = list(group)
        for at in range(0, len(alike), setting.batch_size):
            batch = alike[at:at + setting.batch_size]
            yield torch.tensor([rows.ids[row] for row in batch]), [rows.targets[row] for row in batch]


def summed_loss(module: Any, task: str, tokens: dict[str, torch.Tensor], targets: list[Any]) -> torch.Tensor:
    """The task's loss of a batch, summed over all that is learned of it: its rows, or its tokens."""
    part = parts.load("task", task)
    found = part.answered(module, tokens, targets)
    loss: torch.Tensor = part.loss(*found) * len(found[-1])
    return loss
