"""report.md: the choice, the table and the notes, for a pull request or a wiki."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from trimtune.report import facts, rivals, tables, tuning, words
from trimtune.results import Result


def text(result: Result, folder: Path) -> str:
    """The report as GitHub-flavored Markdown. Everything that a user named is escaped."""
    parts = [_head(result, folder), _candidates(result), _verdicts(result), _tried(result), _baselines(result), _rivals(result),
             _rejected(result), _answers(result), _tuning(result), _failures(result), _around(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(given: str) -> str:
    """Text that Markdown shows as it is: on one line, with its special characters escaped."""
    return re.sub(r"([\\`*\[\]<>|#])", r"\\\1", " ".join(given.split()))


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *lines)]
    return "\n".join(rows)


def _head(result: Result, folder: Path) -> str:
    choice = result.choice
    mark = "" if choice.picked else "**Nothing fits.** "
    lines = [f"# {plain(result.study.name)}", f"{mark}{plain(choice.sentence)}"]
    if choice.picked:
        row = result.row(choice.picked)
        shown = []
        for name in tables.shown(result):
            if reading := row.readings.get(name):
                between = f" ({words.interval(reading)})" if reading.low is not None else ""
                counted = words.worst_class(row) if name == "worst_class_accuracy" else f"n = {reading.n:,}"
                shown.append(f"- {words.title(name)}: {words.value(reading)}{between}, {plain(counted)}")
        lines += [f"Picked: **{plain(choice.picked)}**" + (f", runner-up: {plain(choice.runner_up)}" if choice.runner_up else ""),
                  "\n".join(shown), "Go on:", "    " + " ".join(facts.commands(result, folder)["ship"].split())]
    return "\n\n".join(lines)


def _candidates(result: Result) -> str:
    head = ["#", "candidate", *(f"{words.title(name)} {f'({n})' if (n := tables.samples(result, name)) else ''}".strip()
                                for name in tables.shown(result)), "inside limits", "remarks"]
    lines = []
    for line in tables.lines(result):
        remarks = [line.role, "tied with the best" if line.tied else "", line.verdict,
                   f"whole chain: {line.whole}" if line.whole else "", "" if line.row.packed == "plain" else line.row.packed,
                   f"{line.row.status}: {line.row.cause}" if line.row.status != "measured" else ""]
        lines.append([str(line.number), plain(line.row.name), *map(_cell, line.cells),
                      (line.unjudged or ("yes" if line.inside else "no")) if line.row.status == "measured" else "–",
                      plain("; ".join(filter(None, remarks)))])
    return "## Candidates\n\n" + (_table(head, lines) if lines else "The study has no candidates.")


def _cell(cell: tables.Cell) -> str:
    if cell.sort is None:
        return plain(cell.note or cell.text)
    aside = "; ".join(filter(None, (cell.detail, cell.note)))
    return plain(cell.text + (f" ({aside})" if aside else ""))


def _verdicts(result: Result) -> str:
    lines = [[plain(verdict.candidate), plain(verdict.against) or "–", "no verdict" if verdict.kind == "none" else verdict.kind,
              plain(verdict.words)] for verdict in result.choice.verdicts]
    return "## What trimming brought\n\n" + _table(["candidate", "against", "verdict", "why"], lines) if lines else ""


def _tried(result: Result) -> str:
    quality = words.title(tables.metric(result)).lower()
    found = [f"## Chains tried for {plain(ledger.method)} on {plain(ledger.engine)}\n\n"
             + _table(["trims", f"{quality}, validation rows", "size", f"{ledger.timed}, roughly", "became"],
                      [[*map(plain, cells)] for cells in tries]) for ledger, tries in tables.tried(result)]
    return "\n\n".join(found)


def _baselines(result: Result) -> str:
    lines = [[plain(baseline.title), *map(_cell, cells),
              plain("; ".join(filter(None, (standing, baseline.note, baseline.cause))))]
             for baseline, cells, standing in tables.baselines(result)]
    head = ["baseline", *(words.title(name) for name in tables.of_baselines(result)), "remarks"]
    told = f"Not tuned; the same test rows. {tables.baselines_words(result)}"
    return f"## Baselines\n\n{told}\n\n{_table(head, lines)}" if lines else ""


def _rivals(result: Result) -> str:
    names = tables.shown(result)
    lines = [[plain(row.name), *(map(_cell, cells) if cells else ["–"] * len(names)), plain(standing)]
             for row, cells, standing in rivals.lines(result)]
    head = ["candidate", *map(words.title, names), "remarks"]
    return f"## The next smaller model\n\n{plain(rivals.told(result))}\n\n{_table(head, lines)}" if lines else ""


def _rejected(result: Result) -> str:
    lines = [f"- {plain(rejection.candidate)}: {plain(rejection.reason)}" for rejection in result.choice.rejected]
    return "## Why not the others\n\n" + "\n".join(lines) if lines else ""


def _answers(result: Result) -> str:
    lines = [f"{plain(prompt)}\n\n- reference: {plain(reference)}\n"
             + "\n".join(f"- {plain(name)}: {plain(answer)}{'' if ended else ' …'}" for name, answer, ended in said)
             for prompt, reference, said in facts.answers(result)]
    return "## What they answer\n\n" + "\n\n".join(lines) if lines else ""


def _tuning(result: Result) -> str:
    lines = [[plain(method.name), plain(" ".join([method.sentence, *method.notes, method.cause]).strip()), plain(method.seeds),
              method.each or "–", method.scored_on or "–", method.seconds, method.memory] for method in tuning.methods(result)]
    quality = words.title(tables.metric(result)).lower()
    head = ["method", "what the budget did", f"{quality} over seeds", "each seed", "on", "time", "peak memory"]
    return "## Tuning\n\n" + _table(head, lines) if lines else ""


def _failures(result: Result) -> str:
    found = [f"- {plain(cause)}: {plain(words.listed(what))}" for cause, what in tables.failures(result)]
    return "## What failed\n\n" + "\n".join(found) if found else ""


def _around(result: Result) -> str:
    rows = ", ".join(f"{split} {count}" for split, count in facts.split_rows(result))
    lines = [f"- Rows: {plain(rows)}; {plain(words.columns(result.data))}",
             *(f"- {plain(note)}" for note in result.data.notes),
             *(f"- Machine, {plain(name)}: {plain(value)}" for name, value in facts.machine(result)),
             *(f"- {plain(way.reading)}: n = {way.samples}" + (f", interval: {plain(way.interval)}" if way.interval else "")
               for way in facts.protocols(result)),
             f"- trimtune {plain(result.version)}, {plain(result.created)}, {words.duration(result.seconds)} in all"]
    return "## Data, machine, protocol\n\n" + "\n".join(lines)
