"""What stands around the figures: the machine, the data, how it was measured, how to ship it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtune.report import tables, words
from trimtune.results import Result
from trimtune.study.limits import quantities


@dataclass(frozen=True)
class Protocol:
    """How one reading was taken: samples, the making of its interval, and what there is to note."""

    reading: str
    meaning: str
    samples: str
    interval: str
    notes: tuple[str, ...]


def protocols(result: Result) -> list[Protocol]:
    """One entry per reading that any candidate has."""
    found, known = [], quantities(result.study.task)
    for name in dict.fromkeys(name for row in result.rows for name in row.readings):
        taken = [row.readings[name] for row in result.rows if name in row.readings]
        notes = tuple(dict.fromkeys(reading.note for reading in taken if reading.note))
        meaning = known[name].meaning if name in known else ""
        found.append(Protocol(words.title(name), meaning, words.spread(reading.n for reading in taken),
                              words.listed(dict.fromkeys(reading.interval for reading in taken if reading.interval)),
                              notes[:6] + ((f"and {len(notes) - 6} more notes, in readings.jsonl",) if len(notes) > 6 else ())))
    return found


def machine(result: Result) -> list[tuple[str, str]]:
    """The machine's facts as (name, text), nested ones joined."""
    return [*_flat(result.machine), *_threads(result)]


def _threads(result: Result) -> list[tuple[str, str]]:
    """The most frequent number of threads, and who was measured with another; nothing where none was found out."""
    measured = [row for row in result.rows if row.status == "measured"]
    counts = {row.name: row.threads or int(result.machine.get("cores", 0)) for row in measured}
    if not any(row.threads for row in measured):
        return []
    usual, *others = (count for count, _ in Counter(counts.values()).most_common())
    each = [f"{count} for {words.listed(name for name in counts if counts[name] == count)}" for count in others]
    return [("threads per candidate", "; ".join([f"{usual} for {'all others' if others else 'all candidates'}", *each]))]


def _flat(given: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for key, value in given.items():
        name = f"{before} {str(key).replace('_', ' ')}".strip()
        if isinstance(value, dict):
            yield from _flat(value, name)
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(map(str, value))
        elif isinstance(value, bool) or value is None:
            yield name, {True: "yes", False: "no", None: "–"}[value]
        else:
            yield name, words.number(value) if isinstance(value, float) else str(value)


def split_rows(result: Result) -> list[tuple[str, str]]:
    return [(split, f"{rows:,}") for split, rows in result.data.rows.items()]


def asked(result: Result) -> list[tuple[str, str]]:
    """The study in a few lines, as (name, text)."""
    study, budget, fit = result.study, result.study.budget, result.study.fit
    smaller = [("Smaller model, raced beside", study.smaller)] if study.smaller else []
    return [("Model", study.model), *smaller, ("Task", study.task), ("Methods", words.listed(use.label for use in study.tune)),
            ("Trims", words.listed("+".join(use.label for use in chain) or "none" for chain in study.trim)),
            ("Engines", words.listed(use.label for use in study.engine)),
            ("Limits", words.listed(words.limit(result, limit) for limit in study.require) or "none"),
            ("Preferred", study.prefer),
            ("Budget per method", (f"{words.count(budget.trials, 'trial')}, {words.count(budget.seeds, 'seed')}, "
                                  f"{budget.minutes:g} min of search")),
            ("Each fit", (f"{words.count(fit.epochs, 'epoch')}, batches of {fit.batch_size}, at most {fit.max_length} tokens, "
                         f"precision {fit.precision}" + (f", patience {fit.patience}" if fit.patience else "")
                         + f", {'balanced' if fit.class_weights == 'balanced' else 'no'} class weights"
                         + (f", packing {fit.packing}" if fit.packing != "auto" else ""))),
            ("Seed", str(study.seed))]


def commands(result: Result, folder: Path) -> dict[str, str]:
    """The commands that go on from a run folder, quoted for a shell."""
    run = shlex.quote(str(folder))
    return {"ship": f"trimtune ship {run} -o bundle/", "choose": f'trimtune choose {run} --require "…"'}


def answers(result: Result) -> list[tuple[str, str, list[tuple[str, str, bool]]]]:
    """A language model's first prompts: (prompt, first reference, of each candidate its name, answer and whether it ended)."""
    found: dict[tuple[str, str], list[tuple[str, str, bool]]] = {}
    for line in tables.lines(result):
        for one in result.examples.get(line.row.name, ()):
            found.setdefault((one["prompt"], one["reference"]), []).append((line.row.name, one["answer"], one["ended"]))
    return [(prompt, reference, said) for (prompt, reference), said in found.items()]
