from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtune.measure._intervals import bootstrap, median_range, percentile_interval, percentile_of, samples_needed, wilson


@settings(deadline=None)
@given(st.integers(1, 2000), st.data())
def test_wilson_equals_scipy(n: int, data: st.DataObject) -> None:
    from scipy.stats import binomtest

    hits = data.draw(st.integers(0, n))
    reference = binomtest(hits, n).proportion_ci(0.95, method="wilson")
    assert wilson(hits, n) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_samples_that_a_percentile_needs() -> None:
    assert [samples_needed(p) for p in (50, 90, 95, 99, 99.9)] == [20, 100, 200, 1000, 10000]


def test_the_bootstrap_interval_holds_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(60):
        low, high = percentile_interval([list(rng.exponential(size=34)) for _ in range(6)], 50, seed=trial)
        held += low <= np.log(2) <= high
    assert held / 60 >= 0.88


def test_rounds_that_differ_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    calm = [list(rng.normal(10, 1, 34)) for _ in range(6)]
    moody = [[value + 3 * (index % 3) for value in taken] for index, taken in enumerate(calm)]
    widths = [high - low for low, high in (percentile_interval(rounds, 50) for rounds in (calm, moody))]
    assert widths[1] > 2 * widths[0]


@given(st.lists(st.lists(st.floats(0.1, 100), min_size=7, max_size=7), min_size=1, max_size=9), st.sampled_from([0, 50, 95, 100]))
def test_of_rounds_that_are_alike_a_percentile_is_numpys(rounds: list[list[float]], percentile: int) -> None:
    assert percentile_of(rounds, percentile) == pytest.approx(np.percentile(np.concatenate(rounds), percentile))


def test_a_quick_round_counts_no_more_for_its_many_samples() -> None:
    slow, quick = [[4.0] * 11] * 10, [[1.0] * 44] * 10
    assert np.percentile(np.concatenate([*slow, *quick]), 75) == 1.0, "a pool of all samples is mostly of quick rounds"
    assert percentile_of([*slow, *quick], 75) == 4.0
    rng = np.random.default_rng(0)
    moody = [list(mood * rng.normal(10, 0.5, 11 * (4 if mood == 1 else 1))) for mood in rng.choice([1, 2], size=20)]
    for percentile in (50, 95):
        low, high = percentile_interval(moody, percentile)
        assert low <= percentile_of(moody, percentile) <= high


def test_median_range_says_its_coverage() -> None:
    assert median_range([3, 1, 2, 6, 5, 4]) == (1, 6, "order statistics of 6 rounds 97%")
    assert median_range([3, 1, 2]) == (1, 3, "order statistics of 3 rounds 75%")
    low, high, how = median_range(range(20))
    assert (low, high) == (5, 14)
    assert how.endswith("96%")


def test_a_bootstrap_of_sums_is_scipys() -> None:
    from scipy.stats import bootstrap as reference

    values = np.random.default_rng(3).exponential(size=(80, 1))
    expected = reference((values[:, 0],), np.mean, method="percentile", n_resamples=4000, rng=np.random.default_rng(0))
    found = bootstrap(values, lambda sums: sums[:, 0] / 80)
    assert found == pytest.approx(tuple(expected.confidence_interval), abs=0.02)
    assert found == bootstrap(values, lambda sums: sums[:, 0] / 80)


def test_a_bootstrap_narrows_as_the_root_of_the_units() -> None:
    rng = np.random.default_rng(0)
    values = np.stack([rng.exponential(size=1600), rng.integers(5, 30, size=1600)], axis=1)
    widths = []
    for count in (100, 1600):
        low, high = bootstrap(values[:count], lambda sums: sums[:, 0] / sums[:, 1])
        assert low < values[:count, 0].sum() / values[:count, 1].sum() < high
        widths.append(high - low)
    assert 2.5 < widths[0] / widths[1] < 6
