"""Training rows that a trim looks at: drawn with the seed, in batches without padding."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from trimtune.study import data
from trimtune.tasks import text_classification
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch


def drawn(rows: Path, count: int, seed: int) -> data.Split:
    """`count` training rows, or all, in seeded order; `rows` is the folder of the data step."""
    train = data.load(rows).train
    order = random.Random(seed).sample(range(len(train.texts)), min(count, len(train.texts)))
    return data.Split([train.texts[row] for row in order], [train.labels[row] for row in order])


def of_equal_length(source: Path, setting: Setting, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Token ids int64 [B, T] and labels [B] of `count` drawn rows, the shortest first; the rows of a batch have T tokens each."""
    import torch

    rows = text_classification.inputs(text_classification.load_tokenizer(source), drawn(setting.rows, count, setting.seed),
                                      setting.max_length)
    for _, group in groupby(sorted(range(len(rows.ids)), key=lambda row: len(rows.ids[row])), lambda row: len(rows.ids[row])):
        alike = list(group)
        for at in range(0, len(alike), setting.batch_size):
            batch = alike[at:at + setting.batch_size]
            yield torch.tensor([rows.ids[row] for row in batch]), torch.tensor([rows.targets[row] for row in batch])
