"""The next smaller model off the shelf beside the pick: said where it would do, never picked."""

from __future__ import annotations

from tests.choose.candidates import TRUTH, failed, limit, predictions, row

from trimtune.choose.choose import choose
from trimtune.results import Choice, Row


def smaller(method: str = "full", **more: float) -> Row:
    found = row(method, **more)  # type: ignore[arg-type]
    return found.model_copy(update={"candidate": found.candidate.model_copy(update={"model": "models/mini"})})


def chosen(right: int, rival: Row, right_of_rival: int, *limits: str) -> Choice:
    rows = [row("full", ms=10, mb=90), row("head", ms=11, mb=90)]
    given = predictions([*rows, rival], right, right - 60, right_of_rival)
    return choose(rows, given, TRUTH, [limit(one) for one in limits], "quality", rivals=[rival])


def test_one_that_ties_and_is_faster_is_the_first_sentence_and_is_not_picked() -> None:
    found = chosen(380, smaller(ms=4, mb=30), 377)
    assert found.sentence.startswith("A smaller model off the shelf is as good: mini:full@onnx_runtime ties with "
                                     "full@onnx_runtime, 94.2% against 95.0% of 400 test rows right (-0.8 points, ")
    assert "2.5× faster, 3.0× smaller. Take full@onnx_runtime: " in found.sentence
    assert (found.picked, found.runner_up) == ("full@onnx_runtime", "head@onnx_runtime")
    assert [(one.candidate, one.against, one.kind) for one in found.smaller] == [
        ("mini:full@onnx_runtime", "full@onnx_runtime", "gain")]
    assert not [one for one in found.rejected if one.candidate.startswith("mini:")]


def test_one_that_is_better_is_said_to_be_even_where_it_costs_more() -> None:
    found = chosen(340, smaller(ms=10, mb=99), 380)
    assert found.sentence.startswith("A smaller model off the shelf is better: mini:full@onnx_runtime beats full@onnx_runtime, ")
    assert "1.1× larger" in found.smaller[0].words


def test_one_that_is_worse_or_as_good_but_slower_is_not_in_the_sentence() -> None:
    worse = chosen(380, smaller(ms=4, mb=30), 300)
    assert worse.smaller[0].kind == "trade"
    assert "2.5× faster" in worse.smaller[0].words and "accuracy −20.0 points" in worse.smaller[0].words
    slower = chosen(380, smaller(ms=20, mb=90), 380)
    assert slower.smaller[0].kind == "no gain here"
    alone = choose([row("full", ms=10, mb=90), row("head", ms=11, mb=90)],
                   predictions([row("full"), row("head")], 380, 320), TRUTH, [], "quality")
    assert worse.sentence == slower.sentence == alone.sentence


def test_one_that_failed_is_told_with_its_cause() -> None:
    rival = failed("full", "out of memory")
    rows = [row("full", ms=10)]
    found = choose(rows, predictions(rows, 380), TRUTH, [], "quality", rivals=[rival])
    assert (found.smaller[0].kind, found.smaller[0].words) == ("none", "it was not measured: out of memory")


def test_with_nothing_inside_the_limits_it_meets_the_most_accurate_one() -> None:
    found = chosen(380, smaller(ms=4, mb=30), 379, "size_mb <= 50")
    assert found.picked is None
    assert found.sentence.startswith("A smaller model off the shelf is as good: mini:full@onnx_runtime ties with ")
    assert "None of the 2 candidates measured is inside the limits." in found.sentence
