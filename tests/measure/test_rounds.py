"""Rounds that others disturb: taken again, not for ever, and told."""

from __future__ import annotations

from typing import Any

import pytest

from trimtune import outside_load
from trimtune.measure._rounds import Rounds


class Told:
    """A meter that says these shares, one when asked after each round."""

    def __init__(self, *shares: float | None) -> None:
        self.shares = [None, *shares]

    def share(self) -> float | None:
        return self.shares.pop(0)


def watched(count: int, *shares: float | None) -> tuple[Rounds, list[int]]:
    rounds, taken = Rounds(count), list[int]()

    def undo(some: int) -> None:
        del taken[-some:]

    meter: Any = Told(*shares)
    rounds.watched(count, taken.append, undo, meter)
    assert not meter.shares
    return rounds, taken


def test_quiet_rounds_are_taken_once() -> None:
    rounds, taken = watched(3, 0.0, 0.1, 0.02)
    assert (taken, rounds.repeated, rounds.kept, rounds.slowed) == ([0, 1, 2], 0, 0, 1.0)


def test_all_rounds_since_the_last_share_are_taken_again() -> None:
    rounds, taken = watched(4, None, 0.5, 0.0, 0.0, 0.0)
    assert (taken, rounds.repeated, rounds.kept, rounds.slowed) == ([0, 1, 2, 3], 2, 0, 1.0)


def test_half_of_the_rounds_are_repeated_at_most() -> None:
    rounds, taken = watched(4, 0.5, 0.0, 0.5, 0.0, 0.5, 0.5)
    assert (taken, rounds.repeated, rounds.kept) == ([0, 1, 2, 3], 2, 2)


def test_a_load_that_stays_is_told_and_no_longer_fought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_load, "_cores", lambda: 2)
    rounds, taken = watched(8, *[0.4] * 11)
    assert (taken, rounds.repeated, rounds.kept) == ([*range(8)], 3, 8)
    assert rounds.slowed == pytest.approx(1 / (1 - 2 * 0.4))


def test_what_a_call_may_lose_ends_at_a_core_that_is_nearly_all_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_load, "_cores", lambda: 16)
    assert [outside_load.slowed(share) for share in (0.0, 0.15)] == [1, 1]
    assert outside_load.slowed(0.5) == pytest.approx(10)
