from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.choose.candidates import TRUTH, failed, limit, no_worse, predictions, right, row, turns

from trimtune.choose import wording
from trimtune.choose.choose import choose
from trimtune.choose.speeds import THROUGHPUT, Speeds
from trimtune.errors import TrimtuneError
from trimtune.records import Limit, Prefer
from trimtune.results import Baseline, Choice, Row


def reasons(choice: Choice) -> dict[str, str]:
    return {rejection.candidate: rejection.reason for rejection in choice.rejected}


def test_quality_takes_the_fastest_of_those_that_nobody_beats() -> None:
    rows = [row("full", ms=10), row("lora", ms=5), row("head", ms=2), failed("prefix", "out of memory: 3 GB")]
    choice = choose(rows, predictions(rows[:3], 380, 378, 340), TRUTH, [], "quality")
    assert (choice.picked, choice.runner_up) == ("lora@onnx_runtime", "full@onnx_runtime")
    assert choice.tied == ("full@onnx_runtime", "lora@onnx_runtime")
    why = reasons(choice)
    assert why["full@onnx_runtime"] == "tied in accuracy with lora@onnx_runtime, 2.0× slower"
    assert why["head@onnx_runtime"].startswith("9.5 points less accurate than lora@onnx_runtime (95% interval ")
    assert why["prefix@onnx_runtime"] == "failed: out of memory: 3 GB"
    assert "94.5% of 400 test rows" in choice.sentence
    assert "can't tell from the most accurate" in choice.sentence


def test_the_binding_limit_is_the_one_whose_removal_changes_the_pick() -> None:
    rows = [row("full", ms=10, mb=90), row("lora", ms=5, mb=90)]
    choice = choose(rows, predictions(rows, 380, 340), TRUTH, [limit("latency_p50_ms <= 8"), limit("size_mb <= 100")], "quality")
    assert choice.picked == "lora@onnx_runtime"
    assert choice.runner_up is None
    assert choice.binding_limit == "latency_p50_ms <= 8"
    assert "Without latency_p50_ms <= 8 it would be full@onnx_runtime: 10.0 points more accurate" in choice.sentence
    assert reasons(choice)["full@onnx_runtime"] == "outside the limits: latency_p50_ms 10 > 8"


def test_limits_that_bind_only_together_are_named_together() -> None:
    rows = [row("full", ms=10, mb=90), row("lora", ms=5, mb=20)]
    choice = choose(rows, predictions(rows, 380, 340), TRUTH, [limit("latency_p50_ms <= 8"), limit("size_mb <= 30")], "quality")
    assert choice.binding_limit == "latency_p50_ms <= 8 and size_mb <= 30"


def test_no_limit_binds_when_the_pick_is_the_same_without() -> None:
    rows = [row("full", ms=10), row("lora", ms=5)]
    assert choose(rows, predictions(rows, 380, 379), TRUTH, [limit("latency_p50_ms <= 8")], "quality").binding_limit is None


@pytest.mark.parametrize(("prefer", "picked"), [("latency", "head"), ("throughput", "prefix"), ("size", "lora"),
                                                   ("cost", "prompt")])
def test_other_preferences_take_the_least(prefer: Prefer, picked: str) -> None:
    rows = [row("full"), row("head", ms=2), row("lora", mb=20), row("prompt", fit=5), row("prefix", rate=300)]
    choice = choose(rows, predictions(rows, 380, 340, 379, 378, 377), TRUTH, [], prefer)
    assert choice.picked == f"{picked}@onnx_runtime"


def test_equal_in_what_is_preferred_goes_to_the_more_accurate() -> None:
    rows = [row("full", "int8"), row("full")]
    choice = choose(rows, predictions(rows, 370, 380), TRUTH, [], "cost")
    assert choice.picked == "full@onnx_runtime"
    assert reasons(choice)["full+int8@onnx_runtime"] == "equal to full@onnx_runtime in fit_seconds, 2.5 points less accurate"


@pytest.mark.parametrize(("prefer", "field", "noise", "real"), [("size", "mb", 23.6001, 24.2), ("cost", "fit", 25.0, 30.0),
                                                                ("latency", "ms", 23.8, 25.0)])
def test_a_difference_within_noise_is_a_tie_that_quality_decides(prefer: Prefer, field: str, noise: float, real: float) -> None:
    for other, picked in ((noise, "full"), (real, "head")):
        rows = [row("head", **{field: 23.6}), row("full", **{field: other})]
        choice = choose(rows, predictions(rows, 340, 380), TRUTH, [], prefer)
        assert choice.picked == f"{picked}@onnx_runtime"
        assert ("within noise" in choice.sentence) == (picked == "full")


def test_an_impossible_limit_gets_the_nearest_miss_and_what_it_would_take() -> None:
    rows = [row("full", ms=12.34, mb=90), row("lora", ms=20, mb=31)]
    require = [limit("latency_p50_ms <= 8"), limit("size_mb <= 80")]
    choice = choose(rows, predictions(rows, 380, 380), TRUTH, require, "quality")
    assert choice.picked is None
    assert choice.binding_limit == "latency_p50_ms <= 8 and size_mb <= 80"
    assert "nearest is full@onnx_runtime" in choice.sentence
    assert "latency_p50_ms from <= 8 to <= 12.4 (by 54%) and size_mb from <= 80 to <= 90 (by 12%)" in choice.sentence
    relaxed = [limit("latency_p50_ms <= 12.4"), limit("size_mb <= 90")]
    assert choose(rows, predictions(rows, 380, 380), TRUTH, relaxed, "quality").picked == "full@onnx_runtime"


def test_a_limit_that_no_reading_can_answer_is_said_to_be_so() -> None:
    rows = [row("full", ms=None)]
    choice = choose(rows, predictions(rows, 380), TRUTH, [limit("latency_p50_ms <= 8")], "quality")
    assert choice.picked is None
    assert "The limit latency_p50_ms <= 8 can't be judged, not measured: too few samples, 118 of 200: drop it" in choice.sentence
    two = [row("full"), row("lora", ms=None)]
    choice = choose(two, predictions(two, 380, 380), TRUTH, [limit("latency_p50_ms <= 12")], "quality")
    assert reasons(choice)["lora@onnx_runtime"] == ("not shown to be inside the limits: latency_p50_ms <= 12 can't be judged, "
                                                    "not measured: too few samples, 118 of 200")


def test_nothing_measured_says_why() -> None:
    choice = choose([failed("full", "out of memory.")], {}, TRUTH, [limit("size_mb <= 8")], "quality")
    assert choice.picked is None
    assert choice.sentence.endswith("The first cause: out of memory.")


def test_an_unknown_reading_is_an_error() -> None:
    with pytest.raises(TrimtuneError, match="unknown reading 'speed'"):
        choose([row("full")], predictions([row("full")], 380), TRUTH, [limit("speed <= 8")], "quality")


def test_no_gain_from_trimming_is_said() -> None:
    rows = [row("full", ms=5), row("full", "int8", ms=6, mb=25)]
    sentence = choose(rows, predictions(rows, 380, 380), TRUTH, [], "quality").sentence
    assert "No gain here in speed from trimming: the one trimmed candidate isn't as good and faster" in sentence
    rows = [row("full", ms=5, spread=0.1), row("full", "int8", ms=4.9, mb=25, spread=0.1)]
    sentence = choose(rows, predictions(rows, 380, 380), TRUTH, [], "quality").sentence
    assert "No gain here in speed from trimming: the plain full@onnx_runtime" in sentence
    assert "3.6× smaller" in sentence
    rows = [row("full", ms=5), row("full", "int8", ms=2.5, mb=25)]
    sentence = choose(rows, predictions(rows, 380, 380), TRUTH, [], "quality").sentence
    assert "ties in accuracy with the plain full@onnx_runtime and is 2.0× faster and 3.6× smaller" in sentence


def test_of_equals_in_quality_and_speed_the_smaller_is_taken() -> None:
    rows = [row("full", ms=5, spread=0.1), row("full", "int8", ms=5.1, mb=25, spread=0.1), row("lora", ms=3, mb=90, spread=0.1)]
    assert choose(rows[:2], predictions(rows[:2], 380, 380), TRUTH, [], "quality").picked == "full+int8@onnx_runtime"
    assert choose(rows, predictions(rows, 380, 380, 380), TRUTH, [], "quality").picked == "lora@onnx_runtime", "it is faster"


def test_speeds_are_compared_round_by_round_where_the_rounds_are_known() -> None:
    """The machine slows down for half of the rounds: each latency's own interval is wide, the ratio's is not."""
    moods = [1.0, 1.0, 1.0, 3.0, 3.0, 3.0]
    rows = [row("full", ms=20, spread=0.6), row("lora", ms=16, spread=0.6)]
    times = {rows[0].name: turns(20, moods), rows[1].name: turns(16, moods)}
    given_ = predictions(rows, 380, 380)
    found = choose(rows, given_, TRUTH, [], "quality", by_round=times)
    assert found.picked == "lora@onnx_runtime"
    assert reasons(found)["full@onnx_runtime"].startswith("tied in accuracy with lora@onnx_runtime, 1.2× slower (1.2–1.")
    assert "overlap" in reasons(choose(rows, given_, TRUTH, [], "quality"))["full@onnx_runtime"], "what the intervals alone say"
    assert choose(rows, predictions(rows, 380, 380), TRUTH, [], "latency", by_round=times).picked == "lora@onnx_runtime"


def test_who_prefers_throughput_is_told_of_batches_compared_round_by_round() -> None:
    """One is faster alone, the other in batches; the batches differ in length by a factor of two."""
    moods = [1.0, 2.0] * 6
    rows = [row("full", ms=5, rate=100, mb=90), row("full", "int8", ms=8, rate=130, mb=20)]
    times = {each.name: turns(ms, moods, bulk=1000 / rate) for each, ms, rate in zip(rows, (5, 8), (100, 130), strict=True)}
    found = choose(rows, predictions(rows, 380, 380), TRUTH, [], "throughput", by_round=times)
    assert found.picked == "full+int8@onnx_runtime"
    assert reasons(found)["full@onnx_runtime"] == "1.3× slower in bulk (1.2–1.4) than full+int8@onnx_runtime"
    assert "130 rows/s" in found.sentence
    assert "is 1.3× faster in bulk (1.2–1.4) and 4.5× smaller" in found.sentence
    assert choose(rows, predictions(rows, 380, 380), TRUTH, [], "latency", by_round=times).picked == "full@onnx_runtime"


def test_small_differences_in_bulk_are_those_of_the_rate() -> None:
    """27 rows in the time of 25 are 8% more; 25 in that of 27 are 7.4% less."""
    rows = [row("full", rate=200), row("lora", rate=216)]
    times = {each.name: turns(10, [1.0] * 12, bulk=1000 / rate) for each, rate in zip(rows, (200, 216), strict=True)}
    given_, speeds = predictions(rows, 380, 380), Speeds(times)
    assert wording.ratio(rows[0], rows[1], THROUGHPUT, wording.MORE, speeds).startswith("7.4% slower in bulk (")
    assert wording.ratio(rows[0], rows[1], THROUGHPUT, wording.LESS, speeds).startswith("8% faster in bulk (")
    assert reasons(choose(rows, given_, TRUTH, [], "throughput", by_round=times))["full@onnx_runtime"].startswith("7.4% slower")


def test_what_falls_behind_another_than_the_pick_is_told_that() -> None:
    """A can't be told from B, nor C from B; A is faster than C, and the pick is B."""
    rows = [row("full", rate=104), row("head", rate=101), row("lora", rate=100)]
    moods = ([1.0] * 12, [0.9, 1.2] * 6, [1.08] * 12)
    times = {each.name: turns(10, mood, bulk=10) for each, mood in zip(rows, moods, strict=True)}
    found = choose(rows, predictions(rows, 380, 381, 382), TRUTH, [], "throughput", by_round=times)
    assert found.picked == "head@onnx_runtime"
    assert reasons(found)["lora@onnx_runtime"] == "7.4% slower in bulk (2.8–12%) than full@onnx_runtime"


def test_what_no_candidate_has_can_not_be_preferred() -> None:
    rows = [each.model_copy(update={"readings": {name: read for name, read in each.readings.items() if name != THROUGHPUT}})
            for each in (row("full"), row("lora"))]
    with pytest.raises(TrimtuneError, match="No candidate has a reading throughput_rows_per_s") as error:
        choose(rows, predictions(rows, 380, 380), TRUTH, [], "throughput")
    assert "Known: cost, latency, quality, size." in str(error.value)


def test_a_speed_that_the_rounds_do_not_tell_apart_is_called_equal() -> None:
    rows = [row("full", ms=10, mb=90), row("lora", ms=10.3, mb=90)]
    times = {rows[0].name: turns(10, [1, 1.1, 1, 1.1, 1, 1]), rows[1].name: turns(10, [1.1, 1, 1.1, 1, 1, 1])}
    found = choose(rows, predictions(rows, 380, 380), TRUTH, [], "quality", by_round=times)
    assert reasons(found)["lora@onnx_runtime"].startswith("tied in accuracy with full@onnx_runtime, as fast (0.9")
    beside = {name: each.model_copy(update={"slowed": 3.0}) for name, each in times.items()}
    found = choose(rows, predictions(rows, 380, 380), TRUTH, [], "quality", by_round=beside)
    assert "full@onnx_runtime, speed can't be told (0.3" in reasons(found)["lora@onnx_runtime"], "the machine was busy"


def test_a_cheaper_method_that_ties_is_mentioned() -> None:
    rows = [row("full", ms=5, fit=60), row("head", ms=5.5, fit=3)]
    sentence = choose(rows, predictions(rows, 380, 380), TRUTH, [], "quality").sentence
    assert "No gain here from dearer tuning: head@onnx_runtime ties in accuracy and took 3 s to tune instead of 60 s" in sentence


def baseline(name: str, count: int, shift: int = 0) -> Baseline:
    return Baseline(name=name, title=name.title(), predictions=right(count, shift))


def test_a_baseline_that_ties_is_the_first_sentence() -> None:
    rows = [row("full", ms=5), row("head", ms=6)]
    given_ = predictions(rows, 380, 300)
    found = choose(rows, given_, TRUTH, [], "quality", [baseline("majority", 40), baseline("tfidf", 377, shift=2)])
    assert found.sentence.startswith("No gain from tuning is shown here: Tfidf ties with full@onnx_runtime, 94.2% against 95.0% "
                                     "of 400 test rows right (-0.8 points, 95% interval -")
    assert " Take full@onnx_runtime: " in found.sentence
    assert found.unbeaten_baselines == ("tfidf",)
    assert found.picked == choose(rows, given_, TRUTH, [], "quality").picked, "a baseline is never picked: it can't be shipped"


def test_a_baseline_that_wins_is_said_to_and_one_that_loses_is_not_named() -> None:
    rows = [row("full", ms=5), row("head", ms=6)]
    given_ = predictions(rows, 340, 300)
    won = choose(rows, given_, TRUTH, [], "quality", [baseline("tfidf", 380), baseline("centroid", 345)])
    assert won.sentence.startswith("Tuning loses here: Tfidf beats full@onnx_runtime, 95.0% against 85.0% of 400 test rows "
                                   "right (+10.0 points, ")
    assert won.unbeaten_baselines == ("tfidf", "centroid")
    lost = choose(rows, given_, TRUTH, [], "quality", [baseline("tfidf", 300), Baseline(name="x", title="X", cause="no words")])
    assert lost == choose(rows, given_, TRUTH, [], "quality")


def test_with_nothing_inside_the_limits_the_baselines_meet_the_most_accurate_one() -> None:
    rows = [row("full", mb=90)]
    found = choose(rows, predictions(rows, 380), TRUTH, [limit("size_mb <= 1")], "quality", [baseline("tfidf", 380)])
    assert found.picked is None
    assert found.sentence.startswith("No gain from tuning is shown here: Tfidf ties with full@onnx_runtime")
    assert "None of the 1 candidate measured is inside the limits." in found.sentence


names = st.lists(st.tuples(st.sampled_from(["full", "lora", "head", "prefix"]), st.sampled_from(["", "int8", "prune_ffn"]),
                           st.sampled_from(["a", "b"])), min_size=1, max_size=10, unique=True)


@st.composite
def races(draw: st.DrawFn) -> tuple[list[Row], dict[str, tuple[int, ...]], tuple[int, ...]]:
    number = st.sampled_from([1.0, 2.0, 5.0, 8.0, 20.0])
    rows = [row(*name, ms=draw(st.one_of(st.none(), number)), mb=draw(number), fit=draw(number), rate=draw(number))
            for name in draw(names)]
    given_ = {each.name: right(draw(st.integers(0, 60)), draw(st.integers(0, 59)), 60) for each in rows}
    return rows, given_, (0,) * 60


limits = st.lists(st.builds(Limit, reading=st.sampled_from(["latency_p50_ms", "size_mb", "fit_seconds"]),
                            op=st.sampled_from(["<=", "<", ">=", ">"]), value=st.sampled_from([0.5, 1.0, 3.0, 8.0, 30.0])),
                  max_size=3)
preferences = st.sampled_from(get_args(Prefer))


@settings(max_examples=150, deadline=None)
@given(races(), limits, preferences)
def test_never_outside_the_limits_and_a_reason_for_each_other_candidate(race, require, prefer) -> None:  # type: ignore[no-untyped-def]
    rows, given_, truth = race
    choice = choose(rows, given_, truth, require, prefer)
    inside = [each for each in rows if all(each.value(bound.reading) is not None and bound.allows(each.value(bound.reading))
                                           for bound in require)]
    assert (choice.picked is None) == (not inside)
    assert choice.picked is None or choice.picked in {each.name for each in inside}
    assert choice.runner_up is None or choice.runner_up in {each.name for each in inside} - {choice.picked}
    assert [item.candidate for item in choice.rejected] == [each.name for each in rows if each.name != choice.picked]
    assert all(len(item.reason) > 8 for item in choice.rejected)
    assert choice.sentence.count(". ") <= 1
    assert choice.sentence.endswith(".")


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(races(), limits.filter(bool), preferences, st.data())
def test_relaxing_a_limit_never_worsens_the_pick(race, require, prefer, data) -> None:  # type: ignore[no-untyped-def]
    rows, given_, truth = race
    index = data.draw(st.integers(0, len(require) - 1))
    old = require[index]
    moved = old.value * data.draw(st.floats(1, 10)) if old.op in ("<", "<=") else old.value / data.draw(st.floats(1, 10))
    wider = [*require[:index], old.model_copy(update={"value": moved}), *require[index + 1:]]
    no_worse(rows, given_, truth, prefer, *(choose(rows, given_, truth, asked, prefer).picked for asked in (require, wider)))
