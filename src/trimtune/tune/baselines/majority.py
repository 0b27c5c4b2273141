"""Majority class: every text gets the label that most training rows have.

It is what accuracy is worth before anything is learned: of two classes at 9 to 1 it has 90% right. Not a classifier to use.

    ŷ = argmax_c n_c,  n_c: training rows of class c; the first of equals

Source: ZeroR in Witten & Frank 2000, Data Mining.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trimtune.study.data import Split
from trimtune.tune.baselines._race import Rule

TASKS = ("text_classification",)


def fit(train: Split, validation: Split, classes: int, base: Path, task: str, max_length: int) -> Rule:
    """The rule that knows one label."""
    label = int(np.bincount(train.labels, minlength=classes).argmax())
    return Rule(lambda texts: [label] * len(texts), size_bytes=None)
