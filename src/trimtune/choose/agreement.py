"""How far a trimmed classifier answers as the one that it was made of: what the two accuracies don't tell.

Rows that the trims answer right for the first time and rows that they answer wrong for the first time cancel in accuracy. Whoever
replaces a model in use will meet both, so the share of test rows with the same answer is said, with Wilson's interval (Wilson
1927), and the class that lost most where that is more than five points. It was chosen for its loss: a hint where to look.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtune.choose.compare import Answers, Compared
from trimtune.measure._intervals import wilson

_LOSS = 0.05
"""share of a class's rows whose loss is worth a word"""


def agreement(compared: Compared, first: str, second: str, labels: Sequence[str], whom: str) -> str:
    """`agrees with its parent on 97.3% of rows (95.4 to 98.4), most lost in refund: −12.5 points of 40 rows`; nothing for
    language models, whose answers are texts.

    Args:
        labels: the classes' names.
        whom: what the second one is called.
    """
    if not isinstance(compared, Answers):
        return ""
    one_N, other_N = compared.said(first), compared.said(second)
    same = int((one_N == other_N).sum())
    share, low, high = (f"{100 * value:.1f}" for value in (same / compared.n, *wilson(same, compared.n)))
    worst = worst_change(one_N, other_N, compared.truth_N)
    told = f"agrees with {whom} on {share}% of rows ({low} to {high})"
    if worst[1] >= -_LOSS:
        return told
    label, change, rows = worst
    name = labels[label] if label < len(labels) else f"class {label}"
    return f"{told}, most lost in {name}: −{100 * -change:.1f} points of {rows} rows"


def worst_change(one_N: np.ndarray, other_N: np.ndarray, truth_N: np.ndarray) -> tuple[int, float, int]:
    """The class whose own rows the first one answers right least often, beside the second one: its index, the change of the share
    that is right, and the number of its rows."""
    rows_C = np.bincount(truth_N)
    right_C, before_C = (np.bincount(truth_N[said_N == truth_N], minlength=len(rows_C)) for said_N in (one_N, other_N))
    change_C = np.where(rows_C > 0, (right_C - before_C) / np.maximum(rows_C, 1), np.inf)
    worst = int(np.argmin(change_C))
    return worst, float(change_C[worst]), int(rows_C[worst])
