"""Rounds that others disturb are taken again; a load that stays is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trimtune import outside_load
from trimtune.outside_load import DISTURBED, Meter

_PATIENCE = 3
"""repeats that were disturbed as well, after which none is tried any more: such a load stays"""


@dataclass
class Rounds:
    """A session's rounds: how many were `repeated`, in how many `kept` ones others took more than a little, and what they took
    of the cores in all that are known, weighed by rounds."""

    whole: int = 0
    repeated: int = 0
    kept: int = 0
    known: int = 0
    taken: float = 0.0

    @property
    def slowed(self) -> float:
        """How many times as long a call may have taken at worst, because of others."""
        return outside_load.slowed(self.taken / self.known) if self.known else 1.0

    def __str__(self) -> str:
        share = f"{DISTURBED:.0%} of the cores"
        again = f"{self.repeated} of {self.whole} rounds were taken again, since other processes took more than {share}"
        return (again + f"; in {self.kept} they still did" * bool(self.kept)) * bool(self.repeated)

    def watched(self, count: int, take: Callable[[int], None], undo: Callable[[int], None], meter: Meter) -> None:
        """Take `count` rounds, and once more those during which others took too much: half as many at most.

        Args:
            take: makes the round of a number.
            undo: forgets the last so many.
        """
        meter.share()
        spare, patience, since = count // 2, _PATIENCE, list[int]()
        for turn in range(count):
            take(turn)
            since.append(turn)  # a load is told every half second
            share = meter.share()
            if share and share > DISTURBED and patience and len(since) <= spare:
                spare, self.repeated = spare - len(since), self.repeated + len(since)
                undo(len(since))
                for again in since:
                    take(again)
                share = meter.share()
                patience -= bool(share and share > DISTURBED)
            if share is not None:
                self.known, self.taken = self.known + len(since), self.taken + share * len(since)
                self.kept += len(since) * (share > DISTURBED)
                since.clear()
