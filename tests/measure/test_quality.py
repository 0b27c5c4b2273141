from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtune.measure import quality


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
