from __future__ import annotations

import numpy as np
import pytest
from tests.choose.candidates import row, turns

from trimtune.choose import speeds
from trimtune.choose.speeds import Ratio, Speeds
from trimtune.results import Turns

MOODS = [1.0, 1.2, 0.9, 4.0, 1.1, 2.5]


def ratio(first: Turns, second: Turns) -> Ratio:
    found = Speeds({"first": first, "second": second}).ratio("first", "second")
    assert found is not None
    return found


def noisy(rng: np.random.Generator, ms: float, moods: np.ndarray, own: float, rounds: int = 60, rows: int = 4) -> Turns:
    """Rows of different length, rounds that slow all, and noise of the candidate's own: of its rounds and of its calls."""
    length_L = np.random.default_rng(0).uniform(0.5, 2, size=rows)
    luck_R1 = np.exp(rng.normal(0, own, size=(rounds, 1)))
    ms_RL = ms * length_L * moods[:, None] * luck_R1 * np.exp(rng.normal(0, 0.1, size=(rounds, rows)))
    return Turns(ms=tuple(map(tuple, ms_RL.tolist())), session="one")


def test_what_slows_a_round_for_both_cancels() -> None:
    found = ratio(turns(24, MOODS), turns(20, MOODS))
    assert found.value == pytest.approx(1.2)
    assert 1 < found.low <= found.value <= found.high < 1.6
    back = ratio(turns(20, MOODS), turns(24, MOODS))
    assert (back.value, back.low, back.high) == pytest.approx((1 / found.value, 1 / found.high, 1 / found.low))
    same = ratio(turns(20, MOODS), turns(20, MOODS))
    assert (same.value, same.low, same.high) == pytest.approx((1.0, 0.952, 1.050), abs=1e-3), "two processes differ by 2.5%"


def test_a_load_that_stays_widens_every_ratio_by_what_it_may_have_done() -> None:
    alone, beside = (ratio(turns(24, MOODS).model_copy(update={"slowed": slowed}), turns(20, MOODS)) for slowed in (1.0, 2.0))
    assert alone.low > 1
    assert beside.tied
    assert (beside.value, beside.low, beside.high) == pytest.approx((alone.value, alone.low / 2, alone.high * 2))


def test_rows_that_one_of_them_did_not_reach_are_compared_for_neither() -> None:
    rng = np.random.default_rng(3)
    lengths_RL = rng.uniform(0.5, 2, size=(12, 11)) * np.linspace(0.5, 2, 11)  # the later rows are the longer ones
    whole, cut = (Turns(ms=tuple(map(tuple, (10 * lengths_RL[:, :rows]).tolist())), session="one") for rows in (11, 4))
    found = ratio(cut, whole)
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 0.952, 1.050), abs=1e-3), "the same time for each row"
    assert Speeds({"cut": cut, "whole": whole, "again": whole}).ratio("whole", "again") == found
    slower = Turns(ms=tuple(tuple(2 * ms for ms in times) for times in cut.ms), session="one")
    assert ratio(slower, whole).value == pytest.approx(2)


def test_one_bad_round_makes_nobody_slower() -> None:
    found = ratio(turns(10, [1, 1, 1, 1, 1, 9]), turns(10, [1, 1, 1, 1, 1, 1]))
    assert found.value == pytest.approx(1)
    assert found.tied


@pytest.mark.slow
def test_equal_candidates_are_tied_and_ten_percent_are_found() -> None:
    rng = np.random.default_rng(5)
    tied = found = 0
    for _ in range(40):
        moods = np.exp(rng.normal(0, 0.3, size=60))
        one, same, slow = (noisy(rng, ms, moods, 0.03) for ms in (10, 10, 11))
        tied += ratio(same, one).tied
        found += ratio(slow, one).low > 1
    assert tied >= 38
    assert found >= 36


def test_the_resampling_in_one_go_is_that_of_plain_loops() -> None:
    ms = ((3.0, 1.0, 2.0), (5.0, 4.0), (6.0, 8.0, 7.0))
    rounds_BR, places_BRL = speeds._draws("x", 3, 3)
    plain = []
    for drawn, places in zip(rounds_BR[:50], places_BRL[:50], strict=True):
        rows = [[ms[which][int(place * len(ms[which]))] for place in row] for which, row in zip(drawn, places, strict=True)]
        plain.append([np.log(np.median(row)) for row in rows])
    assert np.allclose(speeds._drawn_middles(ms, rounds_BR, places_BRL)[:50], plain)


def test_of_few_rounds_the_ends_lie_farther_out() -> None:
    assert speeds._percentiles(6) == pytest.approx((0.00243, 0.99757), abs=1e-5)
    assert speeds._percentiles(10_000) == pytest.approx((0.025, 0.975), abs=1e-4)


def test_candidates_of_two_sessions_are_drawn_apart_and_the_drift_counts() -> None:
    together = ratio(turns(12, MOODS), turns(10, MOODS))
    apart = ratio(turns(12, MOODS, "one"), turns(10, MOODS, "two"))
    assert together.low > 1
    assert apart.tied, "the rounds of one session say nothing about those of another"
    calm, drifted = (ratio(turns(12, session="one"), turns(10, session="two", drift=drift)) for drift in (1.0, 1.1))
    assert calm.low == pytest.approx(1.2, rel=0.25)
    assert (drifted.low, drifted.high) == pytest.approx((calm.low / 1.1, calm.high * 1.1))


def test_without_rounds_the_readings_own_intervals_decide() -> None:
    quick, near, slow = row("a", ms=10), row("b", ms=10.1), row("c", ms=11)
    known = Speeds({})
    assert known.ratio(quick.name, slow.name) is None
    assert known.faster(quick, slow)
    assert not known.faster(quick, near)
    assert known.faster(quick, row("d", ms=None))
    assert not known.faster(row("d", ms=None), row("e", ms=None))
