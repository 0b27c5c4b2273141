"""Energy by counters in a folder that is laid out as the kernel lays it out."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trimtune.measure import _energy, energy


def zone(powercap: Path, folder: str, name: str, energy_uj: int = 0, turn_uj: int = 262143328850) -> Path:
    """As in Linux 6: each zone a folder of small files."""
    home = powercap / folder
    home.mkdir(parents=True)
    for file, content in (("name", name), ("energy_uj", str(energy_uj)), ("max_energy_range_uj", str(turn_uj)), ("enabled", "1")):
        (home / file).write_text(f"{content}\n")
    return home


@pytest.fixture
def powercap(tmp_path: Path) -> Path:
    """Two packages with what lies inside and beside them, and the whole platform."""
    home = tmp_path / "powercap"
    (home / "intel-rapl").mkdir(parents=True)
    (home / "intel-rapl" / "enabled").write_text("1\n")
    for folder, name, energy_uj in (("intel-rapl:0", "package-0", 5_000_000), ("intel-rapl:0:0", "core", 4_000_000),
                                    ("intel-rapl:0:1", "uncore", 100_000), ("intel-rapl:0:2", "dram", 700_000),
                                    ("intel-rapl:1", "package-1", 6_000_000), ("intel-rapl:2", "psys", 90_000_000),
                                    ("intel-rapl-mmio:0", "package-0", 5_000_000)):
        zone(home, folder, name, energy_uj)
    return home


def test_packages_and_their_memory_count_and_nothing_twice(powercap: Path) -> None:
    found, why = _energy.rapl(powercap)
    assert why == ""
    assert [(counter.name, counter.read()) for counter in found] == [
        ("RAPL package-0", 5000.0), ("RAPL package-0 dram", 700.0), ("RAPL package-1", 6000.0)]


def test_a_counter_that_began_anew_is_carried_on(tmp_path: Path) -> None:
    home = zone(tmp_path / "powercap", "intel-rapl:0", "package-0", 262_143_000_000)
    (counter,), _ = _energy.rapl(tmp_path / "powercap")
    before = counter.read()
    (home / "energy_uj").write_text("671150\n")
    assert counter.spent_mj(before, counter.read()) == pytest.approx(1000.0)
    assert counter.spent_mj(10.0, 30.0) == 20.0


def test_no_counter_or_one_that_cannot_be_read_gives_none_and_says_why(powercap: Path, tmp_path: Path) -> None:
    assert _energy.rapl(tmp_path / "none") == ([], f"no counter of energy: {tmp_path / 'none'} shows none of the processor")
    (powercap / "intel-rapl:0:2" / "energy_uj").write_text("")
    found, why = _energy.rapl(powercap)
    assert found == []
    assert "intel-rapl:0:2/energy_uj can't be read" in why
    if os.geteuid():
        (powercap / "intel-rapl:0:2" / "energy_uj").chmod(0)
        assert "Permission denied" in _energy.rapl(powercap)[1]


@dataclass
class Busy:
    """A subject each of whose rows takes 2 mJ of the package."""

    file: Path
    together: int = 4
    turn: int = 0
    asked: list[int] = field(default_factory=list)

    def work(self, rows: int, seed: int) -> None:
        self.asked.append(rows)
        self.file.write_text(str(int(self.file.read_text()) + 2000 * rows))


def test_what_rows_took_is_read_and_warming_up_is_not(tmp_path: Path) -> None:
    home = zone(tmp_path / "powercap", "intel-rapl:0", "package-0")
    counters, _ = _energy.rapl(tmp_path / "powercap")
    subject = Busy(home / "energy_uj")
    turns = [energy.taken(subject, energy.Config(seconds=0.01, settle_seconds=0.0), counters)  # type: ignore[arg-type]
             for _ in range(energy.ROUNDS)]
    assert sum(turn["rows"] for turn in turns) == sum(subject.asked) - 4 * energy.ROUNDS
    found = energy.summarize(turns, energy.Config())["energy_mj_per_row"]
    assert (found.value, found.unit, found.n) == (pytest.approx(2.0), "mJ", 6)
    assert found.note == "of RAPL package-0, idle and other work included"


def test_without_a_counter_there_is_no_figure() -> None:
    found = energy.summarize([{"lacking": "no counter"}] * 6, energy.Config())["energy_mj_per_row"]
    assert (found.value, found.note) == (None, "no counter")


def test_what_this_machine_has_is_what_its_facts_say() -> None:
    from trimtune.measure import _machine

    counters, why = _energy.counters()
    assert bool(counters) != bool(why)
    assert _machine.describe()["energy"] == (", ".join(counter.name for counter in counters) or "none")
    for counter in counters:
        assert counter.spent_mj(counter.read(), counter.read()) >= 0
