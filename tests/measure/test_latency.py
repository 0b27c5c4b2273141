from __future__ import annotations

import time

from trimtune.measure import _timing, latency, throughput


def test_a_percentile_is_refused_below_the_sample_rule() -> None:
    found = latency.summarize([{"ms": [1.0] * 9, "tokenizing": [0.2] * 9}] * 20, latency.Config())
    assert found["latency_p50_ms"].value == 1.0
    assert found["latency_p95_ms"].value is None
    assert found["latency_p95_ms"].note == "too few samples, 180 of 200"
    usual = latency.Config()
    turn = {"ms": [1.0] * usual.rows, "tokenizing": [0.2] * usual.rows}
    assert latency.summarize([turn] * latency.ROUNDS, usual)["latency_p95_ms"].value == 1.0
    assert found["tokenizing_ms"].value == 0.2


def test_a_round_keeps_one_time_per_row() -> None:
    whole, cut = {"ms": [2.00001, 6.0, 8.0]}, {"ms": [4.0, 5.0]}
    assert latency.by_round([whole, cut], latency.Config(rows=3)) == [[2.0, 6.0, 8.0], [4.0, 5.0]]
    assert latency.ROUNDS * latency.Config().rows <= 340, "what a result keeps of a candidate stays small"


def test_throughput_is_the_median_of_the_rounds() -> None:
    samples = [{"rows": 32, "seconds": seconds} for seconds in (0.1, 0.1, 0.1, 0.1, 0.1, 3.2)]
    reading = throughput.summarize(samples, throughput.Config())["throughput_rows_per_s"]
    assert (reading.value, reading.low, reading.high, reading.n) == (320, 10, 320, 6)


def test_a_trend_is_seen_and_noise_is_none() -> None:
    assert _timing.trend([1.0] * 30) == 0
    assert abs(_timing.trend([1.0, 1.1, 0.9] * 10)) < 0.5
    assert _timing.trend([3 - call / 30 for call in range(30)]) > 4


def test_warming_up_ends_when_calls_are_steady_or_its_time_is_spent() -> None:
    calls: list[int] = []

    def faster(item: int) -> None:  # the first forty calls come down from 4 ms to 2
        calls.append(item)
        time.sleep(max(0.002, 0.004 - 0.00005 * len(calls)))

    _timing.until_steady(faster, [1, 2, 3], 5.0)
    assert 30 <= len(calls) < 300
    begun = time.perf_counter()
    _timing.until_steady(lambda _: time.sleep(0.02), [1, 2], 0.1)
    assert time.perf_counter() - begun < 1.0
