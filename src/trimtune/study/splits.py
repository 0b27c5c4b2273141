"""Rows taken off the training rows where the user gave no validation or test split."""

from __future__ import annotations

import random
from collections.abc import Sequence

SHARE = 0.15
"""of each class, for each split that is made"""


def same(text: str) -> str:
    """What two texts have in common when they count as the same: all but case and spaces."""
    return " ".join(text.casefold().split())


def split_off(texts: Sequence[str], labels: Sequence[str], wanted: Sequence[str], seed: int) -> dict[str, list[int]]:
    """Row indices of `train` and of each wanted split, in their old order; stratified, the same for the same seed.

    Every class keeps at least one row in each split (it needs as many rows as there are splits). Rows with the same text
    stay together where the class has enough texts, so that a split made here leaks nothing.
    """
    found: dict[str, list[int]] = {name: [] for name in ("train", *wanted)}
    rows_of: dict[str, dict[str, list[int]]] = {}
    for index, (text, label) in enumerate(zip(texts, labels, strict=True)):
        rows_of.setdefault(label, {}).setdefault(same(text), []).append(index)
    for label in sorted(rows_of):
        groups = list(rows_of[label].values())
        if len(groups) <= len(wanted):
            groups = [[index] for group in groups for index in group]
        random.Random(f"{seed}:{label}").shuffle(groups)
        aim = max(1, round(SHARE * sum(map(len, groups))))
        for place, name in enumerate(wanted):
            taken: list[int] = []
            while len(taken) < aim and (not taken or len(groups) > len(wanted) - place):
                taken += groups.pop()
            found[name] += taken
        found["train"] += [index for group in groups for index in group]
    return {name: sorted(rows) for name, rows in found.items()}
