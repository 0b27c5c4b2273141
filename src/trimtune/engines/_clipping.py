"""Where a tensor's range ends: the c of [l, h] = [max(lowest, −c), min(highest, c)], read off its histogram.

    minmax      ∞
    percentile  the percentile of |x|
    entropy     the c with the smallest KL(P ‖ Q): P the histogram with what is clipped in its outermost bins,
                Q what 256 levels tell of it
    mse         the c with the smallest Σ (x − its level)²

One number for both sides: a tensor that leans to one side (GELU's outputs) keeps its short side whole.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trimtune.engines._ranges import BINS, LEVELS

if TYPE_CHECKING:
    import numpy as np

    from trimtune.engines._ranges import Seen

_COARSE = 8
"""bins that entropy takes as one: 2,048 on each side; finer ones would tell how few values there are"""
_NOTHING = 1e-9
"""probability of what no level stands for, since KL would be infinite"""


def clip_of(seen: Seen, kind: str, percentile: float) -> float:
    """c of `minmax`, `percentile`, `entropy` or `mse`; infinite where nothing is to be clipped."""
    if kind == "minmax" or not max(-seen.lowest, seen.highest):
        return math.inf
    return by_percentile(seen, percentile) if kind == "percentile" else {"entropy": by_entropy, "mse": by_mse}[kind](seen)


def by_percentile(seen: Seen, percentile: float) -> float:
    """The upper edge of the first bin that has `percentile` of all |x| below it."""
    below = seen.sizes().cumsum()
    return float((int((below >= percentile / 100 * below[-1]).argmax()) + 1) * seen.width)


def by_mse(seen: Seen) -> float:
    """The bin's edge with the smallest error: a value inside loses a twelfth of a squared step on average, one outside its
    squared distance to c.
    """
    import numpy as np

    sizes = seen.sizes()
    clips = np.arange(1, BINS + 1) * seen.width
    middles = clips - seen.width / 2
    # of the bins behind each edge: how many values, the sum of their sizes, and of their squared sizes
    beyond, first, second = (_behind(sizes * middles**power) for power in (0, 1, 2))
    steps = (np.minimum(clips, seen.highest) + np.minimum(clips, -seen.lowest)) / LEVELS
    errors = sizes.cumsum() * steps**2 / 12 + second - 2 * clips * first + clips**2 * beyond
    return float(clips[errors.argmin()])


def _behind(values: np.ndarray) -> np.ndarray:
    found: np.ndarray = values[::-1].cumsum()[::-1] - values
    return found


def by_entropy(seen: Seen) -> float:
    """The best of some 120 edges, from the whole range to a sixteenth of the bins."""
    import numpy as np

    counts, half = seen.counts.reshape(-1, _COARSE).sum(1), BINS // _COARSE
    width = seen.width * _COARSE
    last = math.ceil(max(-seen.lowest, seen.highest) / width)
    best, found = math.inf, math.inf
    for reach in range(last, min(last, half // 16) - 1, -half // 128):
        scale, zero = seen.affine(reach * width)
        middles = (np.arange(-reach, reach) + 0.5) * width
        levels = np.clip(np.rint(middles / scale) + zero, 0, LEVELS).astype(np.intp)
        lost = _divergence(counts[half - reach:half + reach], int(counts[:half - reach].sum()), int(counts[half + reach:].sum()),
                           levels)
        if lost < best:
            best, found = lost, reach * width
    return found


def _divergence(kept: np.ndarray, below: int, above: int, levels: np.ndarray) -> float:
    """KL(P ‖ Q) of the kept bins, int64 [bins]; values of one level are spread evenly over those of its bins that have any."""
    import numpy as np

    some = kept > 0
    sums, filled = np.bincount(levels, kept, LEVELS + 1), np.bincount(levels, some, LEVELS + 1)
    told = np.where(some, (sums / np.maximum(filled, 1))[levels], 0)
    wanted = kept.astype(np.float64)
    wanted[0] += below
    wanted[-1] += above
    at = wanted > 0
    p, q = wanted[at] / wanted.sum(), np.maximum(told[at] / max(told.sum(), 1), _NOTHING)
    return float((p * np.log(p / q)).sum())
