"""The trivial baselines on real rows: what each knows, that it never sees a test label, that a failure is a record."""

from __future__ import annotations

import pytest

from trimtune import parts
from trimtune.measure._baselines import race
from trimtune.study import data
from trimtune.study.data import Split
from trimtune.tune.baselines import majority, tfidf_logistic


def fitted(part, rows: data.Rows):  # type: ignore[no-untyped-def]
    return part.fit(rows.train, rows.validation, len(rows.facts.labels), None, "text_classification", 48)


def test_majority_gives_the_most_frequent_label() -> None:
    rows = Split(["a", "b", "c", "d"], [0, 1, 1, 2])
    assert majority.fit(rows, rows, 3, None, "", 8).answer(["x", "y"]) == [1, 1]  # type: ignore[arg-type]


@pytest.mark.slow
def test_tfidf_learns_real_rows_and_its_strength_from_validation_alone() -> None:
    from trimtune.records import DataSpec

    rows = data.read(DataSpec(train="helpdesk"), seed=0)
    rule = fitted(tfidf_logistic, rows)
    right = sum(answer == label for answer, label in zip(rule.answer(rows.test.texts), rows.test.labels, strict=True))
    assert right / len(rows.test) > 0.7  # twelve classes
    assert rule.note in ("C = 1", "C = 10", "C = 100")
    assert rule.size_bytes > 1e5
    swapped = data.Rows(rows.train, rows.validation, Split(rows.test.texts, [0] * len(rows.test)), rows.facts)
    assert fitted(tfidf_logistic, swapped).answer(rows.test.texts) == rule.answer(rows.test.texts)


@pytest.mark.slow
def test_all_of_them_run_as_steps_and_a_rerun_repeats_none(small) -> None:  # type: ignore[no-untyped-def]
    study, store, base, rows = small
    found = {baseline.name: baseline for baseline in race(study, base, rows, store)}
    assert set(found) == {name for name in parts.names("baseline") if study.task in parts.load("baseline", name).TASKS}
    assert not any(baseline.cause for baseline in found.values())
    accuracy = {name: baseline.readings["accuracy"] for name, baseline in found.items()}
    assert accuracy["majority"].value == pytest.approx(1 / 3)
    assert accuracy["nearest_centroid"].value > 0.6
    assert all(reading.n == 48 and reading.low < reading.value <= reading.high for reading in accuracy.values())
    assert found["nearest_centroid"].readings["size_mb"].value > 50
    before = len(store.steps)
    assert race(study, base, rows, store) == tuple(found.values())
    assert len(store.steps) == before, "the run has them already"


@pytest.mark.slow
def test_one_that_fails_is_a_recorded_cause(small, tmp_path) -> None:  # type: ignore[no-untyped-def]
    from trimtune.records import DataSpec
    from trimtune.study.stored import prepared

    study, store, base, _ = small
    (tmp_path / "signs.csv").write_text("text,label\n" + "".join(f"{sign},{name}\n" for name, sign in
                                        (("ask", "?"), ("shout", "!")) for _ in range(12)))
    signs = study.model_copy(update={"data": DataSpec(train=str(tmp_path / "signs.csv"), text="text", label="label")})
    rows, _ = prepared(signs, store)
    found = {baseline.name: baseline for baseline in race(signs, base, rows, store)}
    assert "empty vocabulary" in found["tfidf_logistic"].cause
    assert not found["tfidf_logistic"].readings
    assert found["majority"].readings["accuracy"].value == 0.5
