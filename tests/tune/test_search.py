import math

import pytest

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.records import Artifact, Budget, DataSpec, Fit, Study, Use
from trimtune.results import Trial
from trimtune.store import Store
from trimtune.tune import search
from trimtune.tune.fits import Fits


@pytest.fixture
def small_study():
    return Study(name="s", model="minilm", task="text_classification", data=DataSpec(train="helpdesk"), tune=(), trim=(),
                 engine=(), fit=Fit(epochs=1), budget=Budget(trials=8, seeds=1, minutes=5))


@pytest.mark.parametrize(("trials", "epochs", "expected"), [
    (6, 3, [(1, 6), (3, 3)]), (20, 10, [(1, 20), (2, 10), (4, 5), (10, 3)]), (3, 2, [(1, 3), (2, 2)]), (2, 9, [(9, 2)]),
    (9, 1, [(1, 9)])])
def test_half_of_the_trials_go_on_but_never_fewer_than_two(trials, epochs, expected):
    assert search.rungs(trials, epochs) == expected


def learning(score):
    """Fits that score `score(rate)` in full, and a part of it at a pause; they tell when and how far they were run."""
    runs = []

    def fit_at(rate, seed, until):
        runs.append((rate, until))
        curve = [score(rate) * (epoch + 1) / 3 for epoch in range(until or 3)]
        return Artifact(key=f"{rate} {until}", step="tune", part="head", seconds=1.0 * len(curve),
                        facts={"validation_score": curve[-1], "curve": curve, "learning_rate": rate})
    return fit_at, runs


def test_the_best_of_one_epoch_go_on_to_the_end(small_study):
    three = small_study.model_copy(update={"fit": Fit(epochs=3), "budget": Budget(trials=6, seeds=1, minutes=5)})
    fit_at, runs = learning(lambda rate: 0.9 - abs(math.log10(rate) + 2) / 4)
    trials, whole, _ = search._trials(Use(name="head"), three, fit_at)
    best = sorted(trials, key=lambda trial: abs(math.log10(trial.learning_rate) + 2))[:3]
    assert [until for _, until in runs] == [1] * 6 + [0] * 3
    assert [rate for rate, _ in runs[6:]] == [trial.learning_rate for trial in best]
    assert [trial.pruned for trial in trials].count(False) == len(whole) == 3
    assert [len(trial.curve) for trial in best] == [3, 3, 3]
    assert max(whole, key=search._score).facts["learning_rate"] == best[0].learning_rate
    assert search.at_most(6, 3) == (11, 18)


def test_where_a_trial_fails_on_its_way_the_next_best_goes_instead(small_study):
    three = small_study.model_copy(update={"fit": Fit(epochs=3), "budget": Budget(trials=6, seeds=1, minutes=5)})
    fit_at, _ = learning(lambda rate: 0.9 - abs(math.log10(rate) + 2) / 4)

    def failing(rate, seed, until):
        if not until and rate == 0.01:
            raise StepFailed("no memory")
        return fit_at(rate, seed, until)

    trials, whole, _ = search._trials(Use(name="head"), three, failing)
    assert [(trial.score, trial.cause) for trial in trials if trial.learning_rate == 0.01] == [(None, "no memory")]
    assert len(whole) == 3
    assert all(made.facts["learning_rate"] != 0.01 for made in whole)


def test_the_cap_in_minutes_leaves_room_for_those_that_go_on(small_study):
    capped = small_study.model_copy(update={"fit": Fit(epochs=3), "budget": Budget(trials=6, seeds=1, minutes=9.5 / 60)})
    fit_at, _ = learning(lambda rate: rate)
    trials, whole, notes = search._trials(Use(name="head"), capped, fit_at)
    assert len(trials) == 3  # 3 epochs, and 3 times 2 more
    assert len(whole) == 3
    assert "3 of 6 trials" in notes[0]


def test_an_edge_that_is_best_only_in_the_end_is_looked_beyond_too(small_study, monkeypatch):
    three = small_study.model_copy(update={"fit": Fit(epochs=3), "budget": Budget(trials=3, seeds=1, minutes=5)})
    monkeypatch.setattr(search, "_propose", lambda method, study, course: [course.run(rate, 1) for rate in (0.01, 0.05, 0.1)])
    runs = []

    def slow_starter(rate, seed, until):
        runs.append((rate, until))
        score = rate if not until else 0.5 - abs(rate - 0.06)
        return Artifact(key=f"{rate} {until}", step="tune", part="head", seconds=1.0, facts={
            "validation_score": score, "curve": [score], "learning_rate": rate})

    _, whole, notes = search._trials(Use(name="head"), three, slow_starter)
    assert runs[3:] == [(0.05, 0), (0.1, 0), (0.2, 0), (0.4, 0)]
    assert len(whole) == 4
    assert "at the upper edge" in notes[0]
    assert "the best is there: 0.4" in notes[0]


@pytest.mark.slow
def test_a_fit_that_paused_ends_as_one_that_never_did(small, tmp_path):
    study, _, base, rows = small
    study = study.model_copy(update={"fit": study.fit.model_copy(update={"epochs": 3, "max_length": 16})})
    lora = Use(name="lora", config=parts.load("method", "lora").Config().model_dump())
    straight = Fits(lora, study, base, rows, Store(tmp_path / "a"))(1e-3, 0)
    events = []
    store = Store(tmp_path / "b", events.append)
    fit_at = Fits(lora, study, base, rows, store)
    paused = fit_at(1e-3, 0, 1)
    assert paused.files == {}
    whole = fit_at(1e-3, 0)
    assert [event["text"] for event in events if event["kind"] == "resumed"] == ["resumed at epoch 2, step 3 of 9"]
    assert whole.files == straight.files
    assert whole.key == straight.key
    assert whole.facts["curve"] == straight.facts["curve"]
    assert paused.facts["curve"] == straight.facts["curve"][:1]
    assert whole.seconds > paused.seconds
    fit_at(2e-3, 0, 1)
    assert list(store.folder.glob("checkpoints/*/*.safetensors"))
    fit_at.forget(2e-3, 0)
    assert not list(store.folder.glob("checkpoints/*/*.safetensors"))


@pytest.mark.slow
def test_a_search_stays_in_its_range_repeats_itself_and_takes_the_best(small, tmp_path):
    study, _, base, rows = small
    head = Use(name="head", config=parts.load("method", "head").Config().model_dump())
    study = study.model_copy(update={"budget": Budget(trials=6, seeds=2, minutes=5)})  # three of them Optuna's own
    store = Store(tmp_path / "a")
    ledger, artifact = search.tune(head, study, base, rows, store)
    assert ledger.precision == artifact.facts["precision"]
    assert ledger.peak_memory_mb == max(step.peak_memory_mb for step in store.steps if step.step in ("tune", "features"))
    low, high = parts.load("method", "head").LEARNING_RATES
    assert len({one.learning_rate for one in ledger.trials}) == len(ledger.trials) >= 6
    assert all(low <= one.learning_rate <= high for one in ledger.trials[:6])
    assert [fit.seed for fit in ledger.seeds] == [0, 1]
    best = max(one.score for one in ledger.trials if not one.pruned)
    assert next(one.learning_rate for one in ledger.trials if one.score == best) == ledger.learning_rate
    assert artifact.facts["validation_score"] == max(fit.validation_score for fit in ledger.seeds)
    again, _ = search.tune(head, study, base, rows, Store(tmp_path / "b"))
    assert [one.learning_rate for one in again.trials] == [one.learning_rate for one in ledger.trials]
    assert [one.curve for one in again.trials] == [one.curve for one in ledger.trials]


@pytest.mark.slow
def test_the_cap_in_minutes_ends_the_search_and_says_so(small, tmp_path):
    study, _, base, rows = small
    head = Use(name="head", config=parts.load("method", "head").Config().model_dump())
    capped = study.model_copy(update={"budget": Budget(trials=5, seeds=1, minutes=1e-6)})
    ledger, artifact = search.tune(head, capped, base, rows, Store(tmp_path))
    assert len(ledger.trials) == 1
    assert isinstance(artifact, Artifact)
    assert "1 of 5 trials" in ledger.notes[0]


def at_rates(*scored):
    return [Trial(learning_rate=rate, score=score) for rate, score in scored]


def test_a_best_trial_at_an_edge_asks_for_two_beyond_it():
    head = Use(name="head")  # 1e-3 to 1e-1
    assert search._beyond(head, at_rates((1e-2, 0.5), (9.5e-2, 0.7))) == ("upper", [0.2, 0.4])
    assert search._beyond(head, at_rates((1e-3, 0.7), (1e-2, 0.5))) == ("lower", [5e-4, 2.5e-4])
    assert search._beyond(head, at_rates((1e-3, 0.5), (1e-2, 0.7), (1e-1, 0.6)))[1] == []
    assert search._beyond(head, [Trial(learning_rate=1e-3, score=None, cause="no memory")])[1] == []


@pytest.mark.parametrize(("direction", "side", "beyond"), [(1, "upper", [0.2, 0.4]), (-1, "lower", [5e-4, 2.5e-4])])
def test_a_range_that_ends_too_early_is_widened_once_and_says_so(small_study, direction, side, beyond):
    def rising(rate, seed, until):
        score = 0.5 + direction * 0.1 * math.log10(rate / 1e-2)
        return Artifact(key=str(rate), step="tune", part="head", seconds=0.1,
                        facts={"validation_score": score, "curve": [score]})

    trials, kept, notes = search._trials(Use(name="head"), small_study, rising)
    assert [trial.learning_rate for trial in trials[8:]] == beyond
    assert len(kept) == len(trials) == 10
    assert f"at the {side} edge" in notes[0] and f"the best is there: {beyond[-1]:g}" in notes[0]


def scored_by(score):
    def fit_at(rate, seed, until):
        return Artifact(key=str(rate), step="tune", part="head", seconds=1.0,
                        facts={"validation_score": score(rate), "curve": [score(rate)]})
    return fit_at


def test_a_best_rate_at_the_end_of_few_trials_is_said(small_study):
    few = small_study.model_copy(update={"budget": Budget(trials=3, seeds=1, minutes=5)})
    _, _, notes = search._trials(Use(name="head"), few, scored_by(lambda rate: rate))
    assert "the highest of 3 tried; the range goes on to 0.1" in notes[0]
    _, _, notes = search._trials(Use(name="head"), few, scored_by(lambda rate: -abs(math.log10(rate) + 2)))
    assert notes == []


def test_an_edge_that_no_time_was_left_to_look_beyond_is_said(small_study):
    tight = small_study.model_copy(update={"budget": Budget(trials=8, seeds=1, minutes=8 / 60)})
    trials, _, notes = search._trials(Use(name="head"), tight, scored_by(lambda rate: 0.5 + 0.1 * math.log10(rate)))
    assert len(trials) == 8
    assert "at the upper edge of the range, and no time was left" in notes[0]


def test_the_shared_features_count_in_the_cap(small_study):
    tight = small_study.model_copy(update={"budget": Budget(trials=8, seeds=1, minutes=8 / 60)})
    trials, _, notes = search._trials(Use(name="head"), tight, scored_by(lambda rate: 0.5), lambda made: 5.0)
    assert len(trials) == 3
    assert "3 of 8 trials" in notes[0]


def test_no_rate_is_tried_twice(small_study):
    """Where scores rise to the end of the range, the Gaussian process proposes that end again and again."""
    trials, _, _ = search._trials(Use(name="head"), small_study, scored_by(lambda rate: 0.5 + 0.1 * math.log10(rate)))
    rates = [one.learning_rate for one in trials]
    assert len(set(rates)) == len(rates) >= 8


def test_beside_the_best_rate_lies_the_middle_of_the_wider_gap():
    found = search._beside(Use(name="head"), at_rates((1e-1, 0.8), (1e-2, 0.7), (5e-2, 0.6)))  # 1e-3 to 1e-1
    assert found == pytest.approx(math.sqrt(5e-2 * 1e-1))
    assert search._beside(Use(name="head"), at_rates((1e-2, 0.8), (5e-2, 0.7))) == pytest.approx(math.sqrt(1e-3 * 1e-2))
