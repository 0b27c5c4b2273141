from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.choose.candidates import limit, row

from trimtune.choose.bounds import Bound, bounds_of
from trimtune.choose.limits import broken, check, nearest, reason, relaxed
from trimtune.errors import TrimtuneError
from trimtune.records import Limit
from trimtune.results import Row


def bound(each: Row, text: str) -> Bound:
    return bounds_of(each, [limit(text)])[0]


def test_a_limit_on_a_reading_that_nobody_has_is_an_error_with_the_nearest_name() -> None:
    with pytest.raises(TrimtuneError, match="Did you mean 'latency_p50_ms'"):
        check([limit("latency_p5_ms <= 8")], [row("full")])


def test_the_reason_names_value_and_limit() -> None:
    assert reason(bound(row("full", ms=12.3), "latency_p50_ms <= 8")) == "latency_p50_ms 12.3 > 8"
    assert reason(bound(row("full", ms=8.0004), "latency_p50_ms <= 8")) == "latency_p50_ms 8.0004 > 8"
    assert reason(bound(row("full", ms=None), "latency_p50_ms <= 8")) == \
        "latency_p50_ms <= 8 can't be judged, not measured: too few samples, 118 of 200"


def test_a_reading_without_a_value_is_outside() -> None:
    assert broken([bound(row("full", ms=None), "latency_p50_ms <= 1000")])


def test_the_nearest_has_the_smallest_largest_violation() -> None:
    rows = [row("full", ms=9.0, mb=90), row("lora", ms=12.0, mb=35), row("head", ms=None)]
    bounds = {each.name: bounds_of(each, [limit("latency_p50_ms <= 8"), limit("size_mb <= 30")]) for each in rows}
    assert nearest(rows, bounds) is rows[1]
    assert nearest(rows[2:], bounds) is None


@given(st.sampled_from(["<=", "<", ">=", ">"]), st.floats(0, 1e6), st.floats(1e-3, 1e6))
def test_a_relaxed_limit_lets_the_value_in_and_hardly_more(op: str, value: float, bound: float) -> None:
    asked = Limit(reading="size_mb", op=op, value=bound)  # type: ignore[arg-type]
    moved = relaxed(asked, value)
    assert moved.allows(value)
    assert abs(moved.value - value) <= 0.011 * abs(value) + 1e-12
