from __future__ import annotations

from trimtune.measure import latency, throughput


def test_a_percentile_is_refused_below_the_sample_rule() -> None:
    found = latency.summarize([{"ms": [1.0] * 9}] * 20, latency.Config())
    assert found["latency_p50_ms"].value == 1.0
    assert found["latency_p95_ms"].value is None
    assert found["latency_p95_ms"].note == "too few samples, 180 of 200"
    usual = latency.Config()
    assert latency.summarize([{"ms": [1.0] * usual.rows}] * latency.ROUNDS, usual)["latency_p95_ms"].value == 1.0


def test_a_round_keeps_one_time_per_row() -> None:
    whole, cut = {"ms": [2.00001, 6.0, 8.0]}, {"ms": [4.0, 5.0]}
    assert latency.by_round([whole, cut], latency.Config(rows=3)) == [[2.0, 6.0, 8.0], [4.0, 5.0]]
    assert latency.ROUNDS * latency.Config().rows <= 340, "what a result keeps of a candidate stays small"


def test_throughput_is_the_median_of_the_rounds() -> None:
    samples = [{"rows": 32, "seconds": seconds} for seconds in (0.1, 0.1, 0.1, 0.1, 0.1, 3.2)]
    reading = throughput.summarize(samples, throughput.Config())["throughput_rows_per_s"]
    assert (reading.value, reading.low, reading.high, reading.n) == (320, 10, 320, 6)
