"""Limits against the parent, the same method and engine without trims; 400 test rows made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.choose.candidates import TRUTH, failed, no_worse, right, row
from tests.choose.test_choose import races

from trimtune.choose.choose import choose
from trimtune.choose.compare import paired_difference
from trimtune.records import Limit, Prefer, Reading
from trimtune.results import Choice, Row
from trimtune.study import limits

FULL, INT8 = "full@onnx_runtime", "full+int8@onnx_runtime"


def scored(found: Row, value: float, name: str = "accuracy") -> Row:
    taken = Reading(name=name, value=value, unit="fraction", better="higher", n=len(TRUTH))
    return found.model_copy(update={"readings": {**found.readings, name: taken}})


def chosen(rows: Sequence[Row], counts: Sequence[int], *asked: str, prefer: Prefer = "size") -> Choice:
    """Of rows that have so many of 400 right, each with that share as its accuracy."""
    measured = [each for each in rows if each.status == "measured"]
    given_ = {each.name: right(count) for each, count in zip(measured, counts, strict=True)}
    read = [scored(each, given_[each.name].count(0) / len(TRUTH)) if each in measured else each for each in rows]
    return choose(read, given_, TRUTH, [limits.parse(text) for text in asked], prefer)


def reasons(choice: Choice) -> dict[str, str]:
    return {one.candidate: one.reason for one in choice.rejected}


def test_a_small_loss_is_inside_and_a_larger_one_is_not() -> None:
    rows = [row("full"), row("full", "int8", mb=23)]
    assert chosen(rows, (380, 376), "accuracy>=parent-0.01").picked == INT8, "exactly one point is allowed"
    found = chosen(rows, (380, 370), "accuracy >= parent - 0.01")
    assert found.picked == FULL, "what isn't trimmed is its own parent"
    assert reasons(found)[INT8] == "outside the limits: accuracy 0.925 < parent's 0.95 - 0.01"
    assert found.binding_limit == "accuracy >= parent - 0.01"
    assert "Without accuracy >= parent - 0.01 it would be full+int8@onnx_runtime: 3.9× smaller" in found.sentence
    assert chosen(rows, (380, 379), "accuracy>=parent").picked == FULL


def test_surely_asks_the_interval_of_the_paired_difference() -> None:
    rows = [row("full"), row("full", "int8", mb=23)]
    low = 0.95 + paired_difference(0, 2, 400).low
    found = chosen(rows, (380, 378), "accuracy >= parent - 0.01 surely")
    assert found.picked == FULL
    assert reasons(found)[INT8] == f"outside the limits: accuracy 0.945 (down to {low:.3g}) < parent's 0.95 - 0.01"
    assert chosen(rows, (380, 378), "accuracy >= parent - 0.02 surely").picked == INT8


def test_without_its_own_parent_it_is_held_against_the_method_on_the_first_engine() -> None:
    rows = [row("full", engine="torch_eager"), row("full", engine="openvino_ir"), failed("full", "out of memory"),
            row("full", "int8", mb=23)]
    found = chosen(rows, (380, 390, 370), "accuracy>=parent-0.01")
    assert reasons(found)[INT8] == "outside the limits: accuracy 0.925 < parent's 0.95 - 0.01 (full@torch_eager)"


def test_without_any_parent_nobody_can_judge() -> None:
    rows = [row("full", "int8", mb=23), row("lora")]
    found = chosen(rows, (380, 300), "accuracy>=parent-0.01")
    assert found.picked == "lora@onnx_runtime"
    assert reasons(found)[INT8] == ("not shown to be inside the limits: accuracy >= parent - 0.01 can't be judged, its parent "
                                    "without trims was not measured")
    alone = chosen(rows[:1], (380,), "accuracy>=parent-0.01")
    assert alone.picked is None
    assert alone.sentence.endswith("its parent without trims was not measured: drop it, or measure its parent too.")


def test_the_nearest_miss_says_how_much_more_loss_would_do() -> None:
    rows = [row("full", mb=90), row("full", "int8", mb=23)]
    asked = ("size_mb<=50", "accuracy>=parent-0.01")
    found = chosen(rows, (380, 365), *asked)
    assert found.picked is None
    assert found.sentence.endswith(f"The nearest is {INT8}: to let it in, relax accuracy from >= parent - 0.01 to "
                                   ">= parent - 0.0375.")
    assert found.binding_limit == "accuracy >= parent - 0.01"
    assert chosen(rows, (380, 365), asked[0], "accuracy>=parent-0.0375").picked == INT8


@pytest.mark.parametrize(("asked", "inside"), [("<= parent + 2%", True), ("<= parent + 0.5%", False), ("<= parent + 0.03", True),
                                               ("<= parent + 0.01", False), ("<= parent + 2% surely", True)])
def test_perplexity_may_rise_by_a_share_or_by_a_number(asked: str, inside: bool) -> None:
    rows = [row("lora"), row("lora", "int8", mb=23)]
    given_ = {each.name: tuple((10 * (nats + 0.01 * (at % 7)), 10) for at in range(50))
              for each, nats in zip(rows, (0.7, 0.71), strict=True)}
    read = [scored(each, math.exp(sum(nll for nll, _ in given_[each.name]) / 500), "perplexity") for each in rows]
    found = choose(read, given_, (), [limits.parse(f"perplexity{asked}")], "size", (), "perplexity")
    assert (found.picked == "lora+int8@onnx_runtime") == inside
    if asked == "<= parent + 0.5%":
        assert reasons(found)["lora+int8@onnx_runtime"] == "outside the limits: perplexity 2.09 > parent's 2.07 + 0.5%"


def test_surely_in_perplexity_takes_the_upper_end() -> None:
    rows = [row("lora"), row("lora", "int8", mb=23)]
    parent, better = ([(10 * (0.7 + more * (at % 2)), 10) for at in range(50)] for more in (0.05, -0.05))
    noisy = [(nll + (2 if at % 3 else -4), 10) for at, (nll, _) in enumerate(better)]
    picked = {}
    for name, child in (("calm", better), ("noisy", noisy)):
        given_ = {rows[0].name: parent, rows[1].name: child}
        read = [scored(each, math.exp(sum(nll for nll, _ in given_[each.name]) / 500), "perplexity") for each in rows]
        assert (read[1].value("perplexity") or 9) < (read[0].value("perplexity") or 0)
        picked[name] = choose(read, given_, (), [limits.parse("perplexity <= parent + 0.5% surely")], "size", (), "perplexity")
    assert picked["calm"].picked == "lora+int8@onnx_runtime"
    assert picked["noisy"].picked == "lora@onnx_runtime"
    assert "(up to " in reasons(picked["noisy"])["lora+int8@onnx_runtime"]


losses = st.builds(lambda loss, surely: Limit(reading="accuracy", op=">=", value=-loss, parent=True, surely=surely),
                   st.sampled_from([0.0, 0.01, 0.05, 0.2]), st.booleans())
sizes = st.lists(st.builds(Limit, reading=st.just("size_mb"), op=st.just("<="), value=st.sampled_from([1.0, 5.0, 20.0])),
                 max_size=1)


@settings(max_examples=150, deadline=None)
@given(races(), losses, sizes, st.sampled_from(["quality", "size"]), st.data())
def test_allowing_more_loss_never_worsens_the_pick(race: Any, loss: Limit, size: list[Limit], prefer: Prefer, data: Any) -> None:
    rows, given_, truth = race
    rows = [scored(each, given_[each.name].count(0) / len(truth)) for each in rows]
    wider = loss.model_copy(update={"value": loss.value - data.draw(st.sampled_from([0.0, 0.02, 0.5])),
                                    "surely": loss.surely and data.draw(st.booleans())})
    before, after = (choose(rows, given_, truth, [asked, *size], prefer).picked for asked in (loss, wider))
    no_worse(rows, given_, truth, prefer, before, after)
