from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtune.measure import _calibration, quality


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_macro_f1_equals_sklearn(pairs: list[tuple[int, int]]) -> None:
    from sklearn.metrics import f1_score

    truth, answers = np.array(pairs).T
    assert quality.macro_f1(truth, answers, 5) == pytest.approx(f1_score(truth, answers, average="macro", zero_division=0))


def test_readings_from_answers() -> None:
    truth = [0] * 50 + [1] * 40 + [2] * 10
    answers = [0] * 50 + [1] * 38 + [0] * 2 + [2] * 5 + [1] * 5
    sample = {"predictions": answers, "truth": truth, "classes": ["a", "b", "c", "never seen"]}
    found = quality.summarize([sample], quality.Config())
    assert (found["accuracy"].value, found["accuracy"].n, found["accuracy"].interval) == (0.93, 100, "Wilson 95%")
    worst = found["worst_class_accuracy"]
    assert (worst.value, worst.n, worst.note) == (0.5, 10, "c")
    assert found["macro_f1"].low < found["macro_f1"].value < found["macro_f1"].high
    for reading in found.values():
        assert 0 <= reading.low <= reading.value <= reading.high <= 1


def test_the_bootstrap_is_the_same_each_time() -> None:
    sample = [{"predictions": [0, 1, 0, 1] * 20, "truth": [0, 1, 1, 1] * 20, "classes": ["a", "b"]}]
    assert quality.summarize(sample, quality.Config()) == quality.summarize(sample, quality.Config())


def test_predictions_come_back_in_the_order_of_the_rows() -> None:
    texts = ["1" * length for length in (5, 1, 9, 3, 3, 7)]
    found = quality.predict(lambda batch: np.eye(10)[[len(text) for text in batch]], texts, batch_size=2)
    assert found == [5, 1, 9, 3, 3, 7]


def drawn(n: int, overconfident: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences between 0.5 and 1, and answers that are right less often than these say."""
    rng = np.random.default_rng(seed)
    confidence_N = rng.uniform(0.5 + overconfident, 1, size=n)
    return confidence_N, rng.random(n) < confidence_N - overconfident


def test_the_calibration_error_is_the_mean_gap_of_equally_large_bins() -> None:
    confidence_N, right_N = drawn(600, 0.1)
    bins = np.array_split(np.argsort(confidence_N), 15)
    gaps = [len(rows) / 600 * abs(right_N[rows].mean() - confidence_N[rows].mean()) for rows in bins]
    assert _calibration.error(confidence_N, right_N) == pytest.approx(sum(gaps), abs=1e-3)
    assert _calibration.error(np.full(200, 0.9), np.arange(200) < 180) == pytest.approx(0), "equal confidences share a bin"
    assert _calibration.error(np.ones(200), np.zeros(200)) == 1.0


def test_confidences_that_are_right_read_what_chance_gives_and_others_read_more() -> None:
    honest, proud = (_calibration.calibration(*drawn(480, much), 200, 0) for much in (0.0, 0.15))
    assert honest.value < honest.chance_high
    assert proud.value == pytest.approx(0.15, abs=0.04)
    assert proud.low > proud.chance_high
    assert honest.low <= honest.value <= honest.high


@pytest.mark.slow
def test_the_interval_of_the_calibration_error_holds_what_many_rows_read() -> None:
    true = _calibration.error(*drawn(200_000, 0.15))
    found = [_calibration.calibration(*drawn(480, 0.15, seed), 100, seed) for seed in range(1, 61)]
    assert sum(each.low <= true <= each.high for each in found) >= 52


def test_readings_of_calibration() -> None:
    confidence_N, right_N = drawn(200, 0.1)
    sample = {"truth": [0] * 200, "predictions": [int(not right) for right in right_N], "classes": ["a", "b"],
              "confidences": confidence_N.tolist()}
    found = quality.summarize([sample], quality.Config())["calibration_error"]
    assert (found.n, found.better) == (200, "lower")
    assert found.low <= found.value <= found.high
    assert "exactly right would read 0.0" in found.note
    fewer = {key: value if key == "classes" else value[:140] for key, value in sample.items()}
    few = quality.summarize([fewer], quality.Config())
    assert (few["calibration_error"].value, few["calibration_error"].note) == (None, "too few rows, 140 of 150")
    del sample["confidences"]
    assert "calibration_error" not in quality.summarize([sample], quality.Config()), "a rule that needs no tuning has none"


def test_a_confidence_is_the_largest_softmax_probability() -> None:
    logits_BC = np.array([[0.0, np.log(3.0)], [800.0, 0.0]], dtype=np.float32)
    found = quality.answered(lambda batch: logits_BC[[int(text) for text in batch]], ["0", "1", "0"], batch_size=2)
    assert found == ([1, 0, 1], [0.75, 1.0, 0.75])
