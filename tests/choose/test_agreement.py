"""Which answers trims changed, of predictions made by hand: three classes of 20 rows, two of them named."""

from __future__ import annotations

import numpy as np
import pytest
from tests.choose.candidates import failed, row

from trimtune.choose.agreement import agreement, worst_change
from trimtune.choose.choose import choose
from trimtune.choose.compare import answers
from trimtune.choose.likelihood import likelihoods
from trimtune.measure._intervals import wilson

TRUTH = tuple(at // 20 for at in range(60))


def other(*changed: int) -> tuple[int, ...]:
    """All right but for these rows."""
    return tuple((label + 1) % 3 if at in changed else label for at, label in enumerate(TRUTH))


def told(one: tuple[int, ...], two: tuple[int, ...]) -> str:
    return agreement(answers({"one": one, "two": two}, TRUTH, ["one", "two"]), "one", "two", ("refund", "login"), "its parent")


def test_equal_accuracy_may_hide_changed_answers() -> None:
    low, high = wilson(58, 60)
    assert told(other(0), other(20)) == f"agrees with its parent on 96.7% of rows ({100 * low:.1f} to {100 * high:.1f})"
    assert told(other(3), other(3)).startswith("agrees with its parent on 100.0% of rows (94.0 to 100.0)")


def test_another_wrong_answer_is_no_agreement() -> None:
    wrong = tuple(2 if at == 0 else label for at, label in enumerate(TRUTH))
    assert "on 98.3% of rows" in told(other(0), wrong)


def test_the_class_that_lost_more_than_five_points_is_named() -> None:
    assert told(other(20, 21, 40), other()).endswith(", most lost in login: −10.0 points of 20 rows")
    assert told(other(41, 42, 43), other()).endswith(", most lost in class 2: −15.0 points of 20 rows"), "a class without a name"
    assert "lost" not in told(other(0), other()), "one row of 20 is five points, not more"
    assert "lost" not in told(other(), other(0, 1, 2, 3)), "a gain is no loss"


def test_a_class_without_test_rows_is_passed_over() -> None:
    truth = np.array([0, 0, 2, 2])
    assert worst_change(np.array([0, 1, 2, 2]), truth, truth) == (0, pytest.approx(-0.5), 2)


def test_language_models_have_none() -> None:
    rows = {"one": [(1.0, 3), (2.0, 3)], "two": [(1.5, 3), (2.5, 3)]}
    assert agreement(likelihoods(rows, ["one", "two"]), "one", "two", (), "it") == ""


def test_a_verdict_says_it_against_the_parent_and_what_lies_further_back() -> None:
    rows = [row("full"), row("full", "prune_ffn", mb=70), row("full", "prune_ffn+int8", mb=18),
            failed("full", "no memory", "int8")]
    given = dict(zip([each.name for each in rows], (other(), other(0), other(1, 2)), strict=False))
    found = choose(rows, given, TRUTH, [], "quality", labels=("refund", "login", "outage")).verdicts
    first, second, third = (one.words for one in found if one.kind != "unsafe")
    assert ", agrees with its parent on 98.3% of rows (" in first
    assert ", agrees with its parent on 95.0% of rows (" in second
    assert ", agrees with it on 96.7% of rows (" in third
    assert third.endswith(", most lost in refund: −10.0 points of 20 rows")
