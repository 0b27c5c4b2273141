"""More texts for a student to be taught on, beside the labelled rows: the user's own without labels, and changed copies of rows.

A changed copy has lost some words, or has them masked, or has them change places with the next one (Jiao et al. 2020, TinyBERT,
arXiv 1909.10351, section 3.2, and Wei & Zou 2019, arXiv 1901.11196, section 2, make more rows of few). A label may not hold for
it, so only the teacher answers it. Words are what spaces part.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from trimtune.study import data, unlabelled
from trimtune.study.splits import same

SHARE = 0.15
"""of a text's words that a copy changes, one at least"""


def fresh(path: Path, rows: data.Rows) -> list[str]:
    """The texts of a file, each once, without those of the study's rows: test rows are not for learning from."""
    known = {same(text) for split in (rows.train, rows.validation, rows.test) for text in split.texts}
    found = {same(text): text for text in unlabelled.read(path)}
    return [text for key, text in found.items() if key not in known]


def copies(texts: Sequence[str], count: int, mask: str | None, seed: int) -> list[str]:
    """`count` changed copies of each text that has two words or more, the same ones for the same seed.

    Args:
        mask: the tokenizer's word for a masked one; None where it has none, and nothing is masked.
    """
    draw, made = random.Random(f"{seed}/copies"), []
    changes = [_drop, _swap] if mask is None else [_drop, _swap, _mask]
    for text in texts:
        words = text.split()
        for _ in range(count if len(words) > 1 else 0):
            places = draw.sample(range(len(words)), max(1, round(SHARE * len(words))))
            made.append(" ".join(draw.choice(changes)(words, places, mask or "")))
    return made


def _drop(words: Sequence[str], places: Sequence[int], mask: str) -> list[str]:
    return [word for at, word in enumerate(words) if at not in places]


def _mask(words: Sequence[str], places: Sequence[int], mask: str) -> list[str]:
    return [mask if at in places else word for at, word in enumerate(words)]


def _swap(words: Sequence[str], places: Sequence[int], mask: str) -> list[str]:
    swapped = list(words)
    for at in places:
        other = at + 1 if at + 1 < len(words) else at - 1
        swapped[at], swapped[other] = swapped[other], swapped[at]
    return swapped
