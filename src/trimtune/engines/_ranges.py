"""Ranges of activations, seen batch after batch: of each tensor its extremes and one histogram, however many rows come.

    bin i counts the x with  i·w ≤ x < (i + 1)·w,   w = 2^e,   −16,384 ≤ i < 16,384

Where a value lies outside, w doubles and bins merge in pairs. Since x / w is exact for a power of two, the counts are those of
one histogram over all values, to the last one, whatever the batches are and in whatever order they come (`plain` says what that
is). `_clipping.py` reads off it what is left outside of the range.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from trimtune.errors import StepFailed

if TYPE_CHECKING:
    import numpy as np

BINS = 2**14
"""on each side of zero"""
LEVELS = 255
"""steps between the 256 values of 8 bits"""
_LEAST = -100
"""the smallest exponent: not far below it float32 ends"""


class Seen:
    """What one tensor's values were so far. Zero always belongs to the range, which then holds it exactly.

    Args:
        counted: whether the histogram is kept too; the extremes alone are had for less.
    """

    def __init__(self, counted: bool = True) -> None:
        import numpy as np

        self.lowest, self.highest, self.counted = 0.0, 0.0, counted
        self.exponent, self.counts = _LEAST, np.zeros(2 * BINS, dtype=np.int64)

    def add(self, values: np.ndarray) -> None:
        """Count float32 values of any shape.

        Raises:
            StepFailed: one is no finite number.
        """
        import numpy as np

        if not values.size:
            return
        lowest, highest = float(values.min()), float(values.max())
        if not math.isfinite(highest - lowest):
            raise StepFailed("calibration: an activation is no finite number, so no range holds it")
        self.lowest, self.highest = min(self.lowest, lowest), max(self.highest, highest)
        if self.counted:
            self._widen(exponent_of(max(-lowest, highest)))
            scaled = values.ravel() * np.float32(2.0**-self.exponent)
            np.floor(scaled, out=scaled)
            scaled += BINS
            self.counts += np.bincount(scaled.astype(np.intp), minlength=2 * BINS)

    def _widen(self, exponent: int) -> None:
        import numpy as np

        if exponent > self.exponent:
            places, wider = np.arange(-BINS, BINS), np.zeros_like(self.counts)
            np.add.at(wider, (places >> min(exponent - self.exponent, BINS.bit_length())) + BINS, self.counts)
            self.exponent, self.counts = exponent, wider

    @property
    def width(self) -> float:
        """w"""
        return 2.0**self.exponent

    def sizes(self) -> np.ndarray:
        """How many values have i·w ≤ |x| ≤ (i + 1)·w: int64 [BINS]."""
        found: np.ndarray = self.counts[BINS:] + self.counts[BINS - 1::-1]
        return found

    def affine(self, clip: float) -> tuple[float, int]:
        """The scale t and the zero z, x ≈ t (a − z), of 256 levels over what of the range lies within ±`clip`."""
        low, high = max(self.lowest, -clip), min(self.highest, clip)
        scale = (high - low) / LEVELS or 1.0
        return scale, round(-low / scale)

    def symmetric(self, clip: float, most: float) -> tuple[float, int]:
        """The scale t, x ≈ t a, whose a reaches `most` where the range ends, or `clip`; and the zero 0."""
        return min(max(-self.lowest, self.highest), clip) / most or 1.0, 0


def exponent_of(largest: float) -> int:
    """The smallest e whose bins reach beyond `largest`, the size of a value."""
    return max(math.frexp(largest)[1] - BINS.bit_length() + 1, _LEAST) if largest else _LEAST


def plain(values: np.ndarray) -> Seen:
    """What `add` must come to in any number of batches: the extremes, and numpy's own histogram of all values at once."""
    import numpy as np

    seen = Seen()
    seen.lowest, seen.highest = min(0.0, float(values.min())), max(0.0, float(values.max()))
    seen.exponent = exponent_of(float(np.abs(values).max()))
    seen.counts = np.histogram(values, np.arange(-BINS, BINS + 1) * seen.width)[0]
    return seen
