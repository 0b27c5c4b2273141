from __future__ import annotations

from trimtune.measure import throughput

TURNS = [{"rows": 64, "seconds": 0.32}, {"rows": 32, "seconds": 0.32}, {"rows": 64, "seconds": 0.16}]


def test_a_round_is_the_time_of_a_row_and_the_reading_their_median_rate() -> None:
    assert throughput.by_round(TURNS, throughput.Config()) == [[5.0], [10.0], [2.5]]
    found = throughput.summarize(TURNS, throughput.Config())["throughput_rows_per_s"]
    assert (found.value, found.low, found.high, found.n) == (200, 100, 400, 3)
