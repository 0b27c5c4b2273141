"""Order, judgment and words of the lines; the front; the budget's sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report import results

from trimtune.records import Fit, Limit, Reading, Use
from trimtune.report import drawing, facts, pareto, search_picture, tables, tuning, words
from trimtune.report import page as pages
from trimtune.results import Baseline, Choice, Result, Verdict


def test_lines_start_with_the_pick_and_end_with_failures() -> None:
    result = results.full()
    lines = tables.lines(result)
    assert [line.role for line in lines[:3]] == ["picked", "runner-up", ""]
    assert [line.row.status for line in lines[-3:]] == ["failed"] * 3
    inside = [line.inside for line in lines]
    assert inside == sorted(inside, reverse=True) and any(inside) and not all(inside)
    middle = [line.row.value("accuracy") or 0 for line in lines[2:] if line.inside]
    assert middle == sorted(middle, reverse=True)


def test_a_refused_reading_keeps_no_limit() -> None:
    result = results.one()
    assert tables.inside_limits(result, result.rows[0])
    limited = result.study.model_copy(update={"require": (Limit(reading="latency_p95_ms", op="<=", value=1e9),)})
    assert not tables.inside_limits(result.model_copy(update={"study": limited}), result.rows[0])


@pytest.mark.parametrize(("last", "whole", "told"), [("gain", "trade", "trade"), ("gain", "gain", ""),
                                                     ("no gain here", "gain", "gain")])
def test_a_chain_says_what_its_last_link_brought_and_what_all_of_it_did(last: str, whole: str, told: str) -> None:
    result = results.full()
    name = next(row.name for row in result.rows if row.status == "measured" and row.candidate.trims)
    verdicts = tuple(Verdict(candidate=name, against=against, kind=kind, words="")  # type: ignore[arg-type]
                     for against, kind in (("parent", last), ("plain", whole)))
    result = result.model_copy(update={"choice": result.choice.model_copy(update={"verdicts": verdicts})})
    line = next(line for line in tables.lines(result) if line.row.name == name)
    assert (line.verdict, line.whole) == (last, told)
    assert ("whole chain: " + told in pages.html(result, Path("runs/x"))) == bool(told)


def test_failures_of_one_cause_stand_together() -> None:
    (cause, what), _ = tables.failures(results.none_measured())
    assert "not installed" in cause and what == ["full@onnx_runtime", "lora@onnx_runtime"]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_the_front_is_what_no_other_point_beats(pairs: list[tuple[int, int]]) -> None:
    points = [{"x": x, "y": y, "good": y} for x, y in pairs]
    front = [(point["x"], point["y"]) for point in pareto.front(points)]
    unbeaten = {(x, y) for x, y in pairs if not any((a <= x and b >= y) and (a, b) != (x, y) for a, b in pairs)}
    assert sorted(unbeaten) == front


def test_the_budget_sentence_says_what_was_not_allowed() -> None:
    result = results.full()
    lora = results.searched("lora", trials=4)
    assert tuning.budget_sentence(result, lora).startswith("4 of 6 trials (1 stopped early), cap of 20 minutes reached;")
    told = results.searched("lora", trials=4, notes=("the cap of 20 minutes left no time for the rest",))
    assert "cap" not in tuning.budget_sentence(result, told), "not twice"
    assert tuning.budget_sentence(result, results.searched("full")).endswith(
        "6 of 6 trials (2 stopped early); best learning rate 3e-5; 3 of 3 seeds."
    )
    assert tuning.mean_and_deviation([0.9, 0.92]) == "91.0 ± 1.4% (mean ± sd of 2 seeds)"
    assert tuning.mean_and_deviation([0.9]) == "90.0% (1 seed, so no spread)"


def test_the_epochs_sentence_says_how_long_the_fits_were() -> None:
    result = results.full()
    result = result.model_copy(update={"study": result.study.model_copy(update={"fit": Fit(epochs=8, patience=2)})})
    search = results.searched("lora")
    assert tuning.epochs_sentence(result, search) == "", "an older record doesn't know"
    seeds = [seed.model_copy(update={"epochs": epochs, "seconds_to_99": 6.2})
             for seed, epochs in zip(search.seeds, (8, 5, 8), strict=True)]
    assert tuning.epochs_sentence(result, search.model_copy(update={"seeds": tuple(seeds)})) == (
        "Its fits ran 5 to 8 of 8 epochs (1 ended after 2 epochs without a better score); "
        "99% of the best validation score after 6.20 s of fitting.")
    assert tuning.epochs_sentence(result, search.model_copy(update={"seeds": tuple(seeds[:1]), "precision": "bf16"})).startswith(
        "Its fit ran 8 of 8 epochs in bf16; 99% of")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.417, "0.42 s"),
        (59.97, "1 min 00 s"),
        (312, "5 min 12 s"),
        (3900, "1 h 05 min"),
        (3599.8, "1 h 00 min"),
        (float("nan"), "–"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.9125, "share", "91.2%"),
        (3.6051, "ms", "3.61 ms"),
        (1234.5, "rows/s", "1,234 rows/s"),
        (22.94, "MB", "22.9 MB"),
        (12345.0, "MB", "12.3 GB"),
        (None, "ms", "–"),
        (0.0, "ms", "0 ms"),
    ],
)
def test_values_have_units_and_sane_digits(value: float | None, unit: str, text: str) -> None:
    assert words.show(value, unit) == text


def test_intervals_and_limits_read_like_figures() -> None:
    result = results.full()
    reading = results.readings(0.9, 8.0, 20, 3)
    assert words.interval(reading["accuracy"]) == "86.7–92.6%" and words.interval(reading["latency_p50_ms"]) == "7.76–8.32 ms"
    assert words.limit(result, Limit(reading="accuracy", op=">=", value=0.9)) == "Accuracy ≥ 90%"
    assert words.limit(result, result.study.require[0]) == "Size on disk ≤ 30 MB" == words.binding(result)
    assert words.rate(1e-3) == "1e-3" and words.rate(3.16e-4) == "3.2e-4"
    assert words.moment("2026-02-03T10:11:12+00:00") == "2026-02-03 10:11:12 UTC" and words.moment("today") == "today"


def test_readings_of_language_models_read_like_figures() -> None:
    def reading(name: str, value: float, unit: str) -> Reading:
        return Reading(name=name, value=value, unit=unit, better="lower", n=9, low=value, high=2 * value)

    assert (words.title("perplexity"), words.value(reading("perplexity", 12.34, "1"))) == ("Perplexity", "12.3")
    assert words.interval(reading("perplexity", 12.34, "1")) == "12.3 – 24.7"
    assert words.value(reading("tokens_per_s_8", 250.0, "tokens/s")) == "250/s"
    assert words.value(reading("rouge_l", 0.314, "fraction")) == "31.4%"


def test_pictures_leave_out_what_is_not_there() -> None:
    result = results.none_measured()
    keyed = drawing.keys(result)
    assert pareto.picture(result, tables.lines(result), "size_mb", keyed, ((300, 200),)) == []
    assert search_picture.picture(result, result.searches[0], keyed) == ""


def test_a_picture_shows_every_point_its_limits_and_its_pick() -> None:
    result = results.full()
    lines = tables.lines(result)
    (svg,) = pareto.picture(result, lines, "latency_p50_ms", drawing.keys(result), ((540, 360),))
    assert svg.count("<title>#") == 42
    assert "stroke-dasharray" in svg and "var(--accent)" in svg and 'width="540"' in svg
    assert pareto.beyond(result, lines, "latency_p50_ms") == []


def test_the_search_picture_draws_pruned_trials_hollow() -> None:
    result = results.full()
    svg = search_picture.picture(result, result.searches[0], drawing.keys(result))
    assert svg.count("<title>learning rate") == 6 and svg.count("stopped early") == 4, "twice per pruned trial: label and tooltip"
    assert svg.count('fill="var(--card)"') == 2


def test_more_methods_than_colors_share_gray() -> None:
    colors = drawing.keys(results.many()).colors
    assert list(colors.values())[-3:] == ["var(--m0)"] * 3 and Use(name="lora", given={"r": 1}).label.startswith("lora(")


def test_the_search_picture_shows_failed_trials_at_the_foot() -> None:
    result = results.trials()
    keyed = drawing.keys(result)
    for search in result.searches:
        svg, failed = search_picture.picture(result, search, keyed), sum(bool(trial.cause) for trial in search.trials)
        assert svg.count("<title>learning rate") == len(search.trials)
        assert svg.count(": failed, the loss became NaN</title>") == failed


def test_a_percentile_that_was_refused_is_neither_inside_nor_outside() -> None:
    result = results.one()
    limited = result.study.model_copy(update={"require": (Limit(reading="latency_p95_ms", op="<=", value=8),)})
    (line,) = tables.lines(result.model_copy(update={"study": limited}))
    assert (line.inside, line.unjudged) == (False, "not measured: too few samples")
    over = limited.model_copy(update={"require": (*limited.require, Limit(reading="size_mb", op="<=", value=1))})
    (line,) = tables.lines(result.model_copy(update={"study": over}))
    assert line.unjudged == "", "a limit that is known to be broken says more"


def test_baselines_stand_apart_from_candidates_with_n_and_interval() -> None:
    result = results.full()
    result = result.model_copy(update={"choice": result.choice.model_copy(update={"unbeaten_baselines": ("nearest_centroid",)})})
    found = tables.baselines(result)
    assert [baseline.title for baseline, _, _ in found] == ["Nearest centroid", "TF-IDF + logistic regression", "Majority class"]
    assert [standing for _, _, standing in found] == ["not beaten", "beaten", "beaten"]
    assert found[0][1][0].detail == "80.1–87.3%"
    (svg,) = pareto.picture(result, tables.lines(result), "size_mb", drawing.keys(result), ((540, 360),))
    assert "Nearest centroid" in svg and "TF-IDF + logistic regression" in svg and "Majority class" not in svg
    assert pareto.undrawn(result, tables.lines(result), "size_mb") == ["Majority class (24.0%)"]
    assert words.worst_class(result.row(result.choice.picked or "")) == "change_plan, 23 of 33"


def test_a_language_models_answers_stand_beside_their_reference() -> None:
    from trimtune.report import facts, markdown

    whole = results.full()
    one, other = whole.rows[0].name, whole.rows[1].name
    said = {"prompt": "name[Blue *Spice*]", "reference": "Blue Spice is a pub.", "ended": True}
    result = whole.model_copy(update={"examples": {one: ({**said, "answer": "A pub."},),
                                                   other: ({**said, "answer": "A", "ended": False},)}})
    (prompt, reference, answers), = facts.answers(result)
    assert (prompt, reference) == ("name[Blue *Spice*]", "Blue Spice is a pub.")
    assert sorted(answers) == sorted([(one, "A pub.", True), (other, "A", False)])
    assert "## What they answer" in markdown.text(result, Path("runs/x"))
    assert "## What they answer" not in markdown.text(whole, Path("runs/x"))


def language_models() -> Result:
    """Two candidates with the readings of language models, and both baselines; no limits, and no format asked for."""
    def taken(name: str, value: float, unit: str, better: str, spread: float) -> Reading:
        return Reading(name=name, value=value, unit=unit, better=better, n=40, low=value - spread, high=value + spread)

    def readings(perplexity: float, bleu: float) -> dict[str, Reading]:
        return {"perplexity": taken("perplexity", perplexity, "1", "lower", 0.1),
                "bleu": taken("bleu", bleu, "points", "higher", 2),
                "forgetting": taken("forgetting", 0.0084, "nats", "lower", 0.02),
                "latency_p50_ms": taken("latency_p50_ms", 7.0, "ms", "lower", 1),
                "size_mb": taken("size_mb", 10.0, "MB", "lower", 0)}

    whole = results.full()
    rows = tuple(row.model_copy(update={"readings": readings(3 + at, 20 - at)}) for at, row in enumerate(whole.rows[:2]))
    study = whole.study.model_copy(update={"task": "causal_lm", "require": ()})
    choice = Choice(picked=rows[0].name, runner_up=None, binding_limit=None, rejected=(), sentence="Take it.",
                    unbeaten_baselines=("nearest_answer",))
    rules = (Baseline(name="nearest_answer", title="Nearest answer", readings={"bleu": readings(1, 19.0)["bleu"]}),
             Baseline(name="untuned", title="Untuned model",
                      readings={key: readings(9, 3.0)[key] for key in ("perplexity", "bleu")}),
             Baseline(name="broken", title="Broken", cause="out of memory"))
    return whole.model_copy(update={"study": study, "rows": rows, "choice": choice, "baselines": rules, "searches": (),
                                    "truth": ()})


def test_baselines_of_language_models_stand_by_what_they_have() -> None:
    result = language_models()
    assert tables.of_baselines(result) == ["perplexity", "bleu"]
    found = {baseline.name: ([cell.text for cell in cells], standing) for baseline, cells, standing in tables.baselines(result)}
    assert list(found) == ["untuned", "nearest_answer", "broken"], "those with the metric first"
    assert found["untuned"] == (["9.00", "3.00 points"], "beaten")
    assert found["nearest_answer"] == (["–", "19.0 points"], "not beaten")
    assert found["broken"][1] == ""
    assert "perplexity" in tables.baselines_words(result) and "rows" not in tables.baselines_words(result)
    drawn = pareto.undrawn(result, tables.lines(result), "size_mb")
    assert drawn == ["Untuned model (9.00)"], "far above the others, where less is better"


def test_what_is_asked_for_has_a_column() -> None:
    result = language_models()
    assert not {"forgetting", "format_valid"} & {*tables.shown(result)}
    assert "forgetting" in tables.further(result)
    limit = Limit(reading="forgetting", op="<=", value=0.1)
    asked = result.model_copy(update={"study": result.study.model_copy(update={"require": (limit,)})})
    assert "forgetting" in tables.shown(asked)
    cell = next(cell for cell in tables.lines(asked)[0].cells if cell.reading == "forgetting")
    assert (cell.text, cell.detail) == ("+0.008", "-0.012 – +0.028")
    assert words.limit(asked, limit) == "Forgetting ≤ 0.1 nats"


def test_a_limit_against_the_parent_is_told_in_points_and_is_no_line_in_the_picture() -> None:
    result = results.full()
    limit = Limit(reading="accuracy", op=">=", value=-0.01, parent=True, surely=True)
    asked = result.model_copy(update={"study": result.study.model_copy(update={"require": (limit,)})})
    assert words.limit(asked, limit) == "Accuracy ≥ its parent's − 1 point, surely"
    inside = {line.row.name: line.inside for line in tables.lines(asked)}
    assert inside["full@onnx_runtime"], "its own parent"
    assert not inside["full+int8@onnx_runtime"], "these answers were drawn apart, so nothing is sure"
    over = next(cell for line in tables.lines(asked) if line.row.name == "full+int8@onnx_runtime" for cell in line.cells
                if cell.reading == "accuracy").over
    assert over == "limit ≥ its parent's − 1 point, surely"
    (svg,) = pareto.picture(asked, tables.lines(asked), "size_mb", drawing.keys(asked), ((540, 360),))
    assert "var(--bad)" not in svg
    (other,) = pareto.picture(result, tables.lines(result), "size_mb", drawing.keys(result), ((540, 360),))
    assert "var(--bad)" in other
    page = pages.html(asked, Path("runs/helpdesk"))
    assert "The limit Accuracy ≥ its parent&#39;s − 1 point, surely is no line: each candidate has its own." in page


def test_threads_are_told_where_they_were_found_out() -> None:
    shown = results.full()
    assert dict(facts.machine(shown))["threads"] == "2"  # the machine's own
    measured = [row.name for row in shown.rows if row.status == "measured"]
    rows = tuple(row.model_copy(update={"threads": 1 if row.name == measured[2] else 2}) for row in shown.rows)
    found = [text for name, text in facts.machine(shown.model_copy(update={"rows": rows})) if name == "threads per candidate"]
    assert found == [f"2 for all others; 1 for {measured[2]}"]
    alike = tuple(row.model_copy(update={"threads": 2}) for row in shown.rows)
    assert ("threads per candidate", "2 for all candidates") in facts.machine(shown.model_copy(update={"rows": alike}))
