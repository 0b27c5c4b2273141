from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from trimtune import outside_load
from trimtune.measure._rounds import Rounds

pytestmark = pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="the load of others is known on Linux alone")
BURN = "while True: pass"


def burn(seconds: float) -> None:
    ends = time.perf_counter() + seconds
    while time.perf_counter() < ends:
        pass


@pytest.fixture
def other():
    """A process that keeps one of our cores busy."""
    process = subprocess.Popen([sys.executable, "-c", BURN])
    os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
    time.sleep(0.3)
    yield process.pid
    process.kill()
    process.wait()


def test_what_others_take_is_seen_and_what_is_ours_is_not(other: int) -> None:
    alone, told = outside_load.Meter(), outside_load.Meter(lambda: [other])
    began, before = time.perf_counter(), outside_load._ticks(other)
    time.sleep(1.0)
    taken, known, after = alone.share(), told.share(), outside_load._ticks(other)
    assert taken is not None and known is not None and before is not None and after is not None
    theirs = (after - before) / os.sysconf("SC_CLK_TCK") / ((time.perf_counter() - began) * len(os.sched_getaffinity(0)))
    assert theirs > 0
    assert taken - known == pytest.approx(theirs, abs=0.06)


def test_our_own_work_and_that_of_our_ended_children_is_no_load_of_others() -> None:
    meter, plain = outside_load.Meter(), outside_load.Meter()
    assert plain._since is not None
    plain._since = (*plain._since[:2], {})  # as if nothing were ours
    began, before = time.perf_counter(), sum(os.times()[:4])
    burn(0.5)
    subprocess.run([sys.executable, "-c", "import time\nend = time.time() + 0.8\nwhile time.time() < end: pass"], check=True)
    told, whole, after = meter.share(), plain.share(), sum(os.times()[:4])
    assert told is not None and whole is not None
    ours = (after - before) / ((time.perf_counter() - began) * len(os.sched_getaffinity(0)))
    assert ours > 0
    assert whole - told == pytest.approx(ours, abs=0.06)


def test_a_moment_is_too_short_to_tell() -> None:
    meter = outside_load.Meter()
    assert meter.share() is None
    assert not meter.disturbed()


def test_rounds_that_were_disturbed_are_told() -> None:
    assert str(Rounds(20)) == ""
    assert str(Rounds(20, 3)) == "3 of 20 rounds were taken again, since other processes took more than 15% of the cores"
    assert str(Rounds(20, 10, 4)).endswith("; in 4 they still did")
