from __future__ import annotations

from trimtune.measure import latency, throughput


def test_a_percentile_is_refused_below_the_sample_rule() -> None:
    found = latency.summarize([{"ms": [1.0] * 33}] * 6, latency.Config())
    assert found["latency_p50_ms"].value == 1.0
    assert found["latency_p95_ms"].value is None
    assert found["latency_p95_ms"].note == "too few samples, 198 of 200"
    assert latency.summarize([{"ms": [1.0] * 34}] * 6, latency.Config())["latency_p95_ms"].value == 1.0


def test_throughput_is_the_median_of_the_rounds() -> None:
    samples = [{"rows": 32, "seconds": seconds} for seconds in (0.1, 0.1, 0.1, 0.1, 0.1, 3.2)]
    reading = throughput.summarize(samples, throughput.Config())["throughput_rows_per_s"]
    assert (reading.value, reading.low, reading.high, reading.n) == (320, 10, 320, 6)
