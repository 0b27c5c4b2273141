"""Histograms that grow batch by batch against numpy's own of everything at once, and where ranges are cut."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from trimtune.engines import _clipping, _ranges
from trimtune.engines._ranges import Seen, plain
from trimtune.errors import StepFailed


def seen(values: np.ndarray, batches: int = 1) -> Seen:
    found = Seen()
    for part in np.array_split(values, batches):
        found.add(part)
    return found


def activations() -> Iterator[tuple[str, np.ndarray]]:
    """As transformers have them: near to normal; one side only; a few values that are twenty times the rest."""
    draw = np.random.default_rng(0)
    normal = draw.normal(size=40_000).astype(np.float32)
    yield "normal", normal
    yield "one side", (3 * normal * 0.5 * (1 + np.tanh(0.798 * 3 * normal))).astype(np.float32)  # GELU, nearly
    yield "outliers", np.concatenate([normal, np.full(20, 20, dtype=np.float32)])


@given(arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False)),
       st.integers(1, 7), st.randoms())
@settings(max_examples=150, deadline=None)
def test_batches_count_as_numpy_counts_everything_at_once(values: np.ndarray, batches: int, random: object) -> None:
    wanted = plain(values)
    for order in (values, values[::-1]):
        found = seen(order, batches)
        assert (found.lowest, found.highest, found.exponent) == (wanted.lowest, wanted.highest, wanted.exponent)
        np.testing.assert_array_equal(found.counts, wanted.counts)
    assert found.counts.sum() == len(values)


def test_a_value_beyond_all_bins_merges_them() -> None:
    found = Seen()
    for value in (0.001, -0.002, 700.0, 1e-30, -5e6):
        found.add(np.array([value], dtype=np.float32))
    np.testing.assert_array_equal(found.counts, plain(np.array([0.001, -0.002, 700, 1e-30, -5e6], dtype=np.float32)).counts)


def test_the_histogram_stays_as_large_as_it_is() -> None:
    found = seen(np.arange(1e6, dtype=np.float32), 50)
    assert found.counts.nbytes == 2 * _ranges.BINS * 8


def test_no_number_is_refused() -> None:
    for wrong in (np.nan, np.inf):
        with pytest.raises(StepFailed, match="no finite number"):
            Seen().add(np.array([1, wrong], dtype=np.float32))


def test_zero_is_a_level_of_its_own() -> None:
    for values in ([3.0, 5.0], [-4.0, -1.0], [-0.3, 7.1], [0.0]):
        scale, zero = seen(np.array(values, dtype=np.float32)).affine(math.inf)
        assert 0 <= zero <= 255
        assert scale > 0
        assert abs((np.clip(np.rint(np.array(values) / scale) + zero, 0, 255) - zero) * scale - values).max() <= scale


@pytest.mark.parametrize("share", [90, 99.9, 100])
def test_a_percentile_is_numpys(share: float) -> None:
    for name, values in activations():
        found = seen(values)
        wanted = np.quantile(np.abs(values), share / 100, method="inverted_cdf")
        assert wanted <= _clipping.clip_of(found, "percentile", share) <= wanted + found.width * 1.001, name


def error(values: np.ndarray, found: Seen, clip: float) -> float:
    """The mean squared error of the values at 256 levels."""
    scale, zero = found.affine(clip)
    levels = np.clip(np.rint(values / scale) + zero, 0, 255)
    return float(np.mean((values.astype(np.float64) - (levels - zero) * scale) ** 2))


def test_mse_has_the_least_error_of_all_clips() -> None:
    for name, values in activations():
        found = seen(values)
        own = error(values, found, _clipping.clip_of(found, "mse", 0))
        largest = np.abs(values).max()
        best = min(error(values, found, clip) for clip in np.linspace(largest / 200, largest, 200))
        assert own <= best * 1.02, name
        assert own <= error(values, found, math.inf) * 1.001, name


def test_few_outliers_are_clipped_and_nothing_else_is() -> None:
    for kind, low, high in (("mse", 2.5, 20.1), ("entropy", 2.5, 8), ("percentile", 2.5, 5)):
        clip = _clipping.clip_of(seen(dict(activations())["outliers"]), kind, 99.9)
        assert low <= clip <= high, kind
    assert _clipping.clip_of(seen(dict(activations())["outliers"]), "minmax", 99.9) == math.inf


def test_a_short_side_stays_whole() -> None:
    found = seen(dict(activations())["one side"])
    for kind in ("mse", "entropy", "percentile"):
        clip = _clipping.clip_of(found, kind, 99.9)
        scale, zero = found.affine(clip)
        assert -zero * scale == pytest.approx(found.lowest, abs=scale), kind


def test_a_tensor_of_zeros_has_a_range() -> None:
    found = seen(np.zeros(9, dtype=np.float32))
    for kind in ("minmax", "percentile", "entropy", "mse"):
        assert found.affine(_clipping.clip_of(found, kind, 99.9)) == (1.0, 0)
