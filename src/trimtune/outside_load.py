"""What others take of our cores while something is timed: beside them it is not as fast as it would be alone.

    share = (busy − ours) / (wall · cores)      seconds; busy: of all processes, and what a hypervisor kept for others

Linux counts a core's time in hundredths of a second and samples it, so a share of half a second is good to some points and a
shorter one is not told. Elsewhere nothing is known.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

DISTURBED = 0.15
"""beyond this share of the cores, what was timed meanwhile is taken again"""
_SECONDS = 0.5
_BUSY = (0, 1, 2, 5, 6, 7)
"""user, nice, system, irq, softirq and steal, of the columns that /proc/stat has for a core"""


class Meter:
    """Counts from when it is made, or last gave a share."""

    def __init__(self, processes: Callable[[], Iterable[int]] = tuple) -> None:
        """Args:
            processes: the ids of our processes beside this one, at the moment of the call.
        """
        self._processes = processes
        self._since = self._counted()

    def share(self) -> float | None:
        """The share of the cores that others took, 0 … 1; None where it isn't known."""
        now = self._counted()
        if self._since is None or now is None:
            return None
        (began, busy, ours), (ended, busy_now, ours_now) = self._since, now
        if ended - began < _SECONDS:
            return None
        self._since = now
        known = sum(ours_now[each] - ours[each] for each in ours_now.keys() & ours.keys())
        return min(1.0, max(0.0, busy_now - busy - known) / ((ended - began) * len(os.sched_getaffinity(0))))

    def disturbed(self) -> bool:
        """Whether others took more than a little, as far as it is known."""
        return (self.share() or 0.0) > DISTURBED

    def _counted(self) -> tuple[float, float, dict[int, float]] | None:
        """The clock, the seconds that our cores were busy, and those of each of our processes with its ended children."""
        if not Path("/proc/stat").is_file() or not hasattr(os, "sched_getaffinity"):
            return None
        cores = {f"cpu{core}" for core in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text(encoding="ascii").splitlines()]
        busy = sum(int(line[1 + column]) for line in lines if line[0] in cores for column in _BUSY)
        tick = os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy / tick, {each: ticks / tick for each in (os.getpid(), *self._processes())
                                                  if (ticks := _ticks(each)) is not None}


def slowed(share: float) -> float:
    """How many times as long a call may take at worst beside others who take a share of the cores: if all of that is on one core
    and the call waits for its thread there. 1 where they take no more than a little; 10 at most: no core is ever all theirs.
    """
    return 1 / (1 - min(0.9, share * _cores())) if share > DISTURBED else 1.0


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ticks(process: int) -> int | None:
    """Processor time of a process and its ended children; None if it is gone."""
    try:
        told = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return sum(map(int, told.rpartition(")")[2].split()[11:15]))
