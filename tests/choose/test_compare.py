from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtune.choose.compare import answers, paired_difference
from trimtune.errors import TrimtuneError


def test_the_test_is_exact_mcnemar() -> None:
    from scipy.stats import binomtest

    found = paired_difference(15, 4, 400)
    assert found.p == pytest.approx(binomtest(15, 19, 0.5).pvalue)
    assert found.value == pytest.approx(11 / 400)


@pytest.mark.parametrize("share", [(0.06, 0.02), (0.10, 0.0), (0.2, 0.15), (0.01, 0.01)])
def test_the_interval_holds_the_true_difference_as_often_as_it_says(share: tuple[float, float]) -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        first, second, _ = rng.multinomial(300, [*share, 1 - sum(share)])
        found = paired_difference(int(first), int(second), 300)
        held += found.low <= share[0] - share[1] <= found.high
    assert held / 400 >= 0.93


def test_equal_answers_still_leave_room_for_a_difference() -> None:
    found = paired_difference(0, 0, 100)
    assert found.tied
    assert (found.low, found.high) == pytest.approx((-0.037, 0.037), abs=1e-3)


@pytest.mark.parametrize("counts", [(15, 4), (38, 0), (60, 45)])
def test_swapping_the_two_mirrors_the_interval(counts: tuple[int, int]) -> None:
    one, other = paired_difference(*counts, 400), paired_difference(*counts[::-1], 400)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


@given(st.integers(0, 60), st.integers(0, 60))
def test_tied_exactly_when_the_interval_holds_zero(first: int, second: int) -> None:
    found = paired_difference(first, second, 500)
    assert found.tied == (found.low <= 0 <= found.high)
    assert found.low <= found.value <= found.high


@given(st.integers(0, 2**31))
def test_all_pairs_at_once_equal_each_pair_by_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.integers(3, size=60)
    given_ = {name: tuple(np.where(rng.random(60) < share, truth, (truth + 1) % 3)) for name, share in
              (("a", 0.95), ("b", 0.8), ("c", 0.5), ("d", 0.95))}
    compared = answers(given_, tuple(truth), list(given_))
    for first in given_:
        for second in given_:
            found = compared.difference(first, second)
            assert compared.better(first, second) == (found.p < 0.05 and found.value > 0)


def test_no_difference_is_called_significant_by_chance_more_often_than_said() -> None:
    rng = np.random.default_rng(0)
    significant = 0
    for _ in range(500):
        only_first = int(rng.binomial(40, 0.5))
        significant += not paired_difference(only_first, 40 - only_first, 400).tied
    assert significant / 500 <= 0.07


def test_predictions_that_do_not_match_the_rows_are_refused() -> None:
    with pytest.raises(TrimtuneError, match="predictions of b don't match the 3 test rows"):
        answers({"a": (0, 0, 0), "b": (0, 0)}, (0, 0, 0), ["a", "b"])
