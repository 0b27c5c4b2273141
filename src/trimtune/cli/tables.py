"""What commands print: records as tables for the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trimtune.records import PREFERRED
from trimtune.report import rivals, tables, words
from trimtune.results import Plan, Result

_WIDE, _WIDER = 100, 120
_VERDICTS = 12
"""verdicts that are printed"""
_MARKS = {"gain": "+", "trade": "±", "no gain here": "0", "unsafe": "!"}
"""verdicts where there is no room for words"""
_NARROW = ("accuracy", "perplexity", "latency_p50_ms", "size_mb", "fit_seconds")
"""what has room in 80 columns"""
_EXTRA = ("format_valid", "forgetting")
"""what has room beside all others only in 120 columns"""
_HEADS = {"accuracy": "accuracy", "perplexity": "perplexity", "bleu": "BLEU", "format_valid": "valid", "forgetting": "forgets",
          "latency_p50_ms": "p50 ms", "latency_p95_ms": "p95 ms", "throughput_rows_per_s": "rows/s", "tokens_per_s": "tokens/s",
          "peak_memory_mb": "mem MB", "size_mb": "size MB", "fit_seconds": "fit s"}
"""what is short of a title; another reading that a limit names has its own, and its unit in each cell"""


def plain_table(*heads: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, justify="right" if head in right else "left", overflow="fold", no_wrap=head in right)
    return table


def show_result(result: Result, console: Console, folder: str) -> None:
    """The candidates, best first, the causes of those that failed, the choice in words, the report's path."""
    limited = [limit.reading for limit in result.study.require]
    narrow = (*_NARROW, PREFERRED.get(result.study.prefer), *limited)
    names = [name for name in dict.fromkeys((*_HEADS, *limited)) if (console.width >= _WIDE or name in narrow)
             and (console.width >= _WIDER or name not in _EXTRA) and name in tables.shown(result)]
    heads = [_HEADS.get(name, words.title(name)) for name in names]
    measured = [line for line in tables.lines(result) if line.row.status == "measured"]
    judged, short = any(line.verdict for line in measured), console.width < _WIDER
    table = plain_table("", "candidate", *heads, *["" if short else "trimming"] * judged, right=tuple(heads))
    crossed, unjudged = ({line.unjudged for line in measured if not line.inside and bool(line.unjudged) is why}
                         for why in (False, True))
    for line in measured:
        mark = {"picked": "→", "runner-up": "2"}.get(line.role, "" if line.inside else "?" if line.unjudged else "×")
        cells = [_cell(line.row, name) for name in names]
        brought = [_MARKS.get(line.verdict, "") if short else line.verdict] * judged
        style = "bold" if line.role == "picked" else "" if line.inside else "dim"
        table.add_row(mark, line.row.name, *cells, *brought, style=style)
    if table.row_count:
        console.print(table)
        outside = "   × outside the limits: " + ", ".join(map(str, result.study.require))
        console.print(Text("→ picked   2 runner-up" + (outside if crossed else "")
                           + "".join(f"   ? {why}" for why in sorted(unjudged)), style="dim"))
        told = [f"{mark} {verdict}" for verdict, mark in _MARKS.items() if any(line.verdict == verdict for line in measured)]
        if told and short:
            console.print(Text("trimming: " + "   ".join(told), style="dim"))
        _show_verdicts(result, measured, console)
    rules = [f"{baseline.title} {_first(cells)}" + f" ({standing})" * bool(standing)
             for baseline, cells, standing in tables.baselines(result)]
    if rules:
        console.print(Text(f"not tuned: {', '.join(rules)}", style="dim"))
    for rival, figures, standing in rivals.lines(result):
        console.print(Text(f"smaller model: {' '.join(filter(None, (rival.name, _first(figures))))}: {standing}", style="dim"))
    for note in [note for search in result.searches for note in search.notes]:
        console.print(Text(f"search: {note}", style="dim"))
    for row in result.rows:
        if row.status != "measured":
            console.print(Text(f"{row.status}: {row.name}: {row.cause}", style="red"))
    console.print()
    console.print(Text(result.choice.sentence))
    if result.choice.picked and (worst := words.worst_class(result.row(result.choice.picked))):
        console.print(Text(f"Worst class: {worst} test rows right."))
    if folder:
        console.print(Text(f"\nReport: {folder}", style="bold"), soft_wrap=True)


def _show_verdicts(result: Result, measured: list[tables.Line], console: Console) -> None:
    """What trimming brought, in the table's order; further ones are in the report."""
    found = [verdict for line in measured if (verdict := result.choice.verdict(line.row.name))]
    for verdict in found[:_VERDICTS]:
        parent = verdict.against and len(result.row(verdict.against).candidate.trims) + 1
        other = len(result.row(verdict.candidate).candidate.trims) != parent
        against = f", against {verdict.against}" if verdict.against and other else ""
        console.print(Text(f"{verdict.candidate}{against}: {verdict}"))
    if found[_VERDICTS:]:
        console.print(Text(f"and {len(found) - _VERDICTS} more verdicts, in the report", style="dim"))


def _first(cells: tuple[tables.Cell, ...]) -> str:
    """The first figure that there is: `83.1%`, `perplexity 12.3`, `BLEU 23.1`."""
    cell = next((cell for cell in cells if cell.sort is not None), None)
    head = _HEADS.get(cell.reading, cell.label) if cell else ""
    return "" if cell is None else cell.text if cell.reading == "accuracy" else f"{head} {cell.text}"


def _cell(row: Any, name: str) -> str:
    reading = row.readings.get(name)
    if reading is None or reading.value is None:
        return "–"
    if row.packed == "simulated" and name in tables.COSTS:
        return "sim."
    if name in _EXTRA or name not in _HEADS:
        return words.value(reading)
    if name != "accuracy":
        return words.number(reading.value)
    half = (reading.high - reading.low) / 2 if reading.high is not None and reading.low is not None else None
    return words.percent(reading.value) + (f" ±{100 * half:.1f}" if half is not None else "")


def show_plan(plan: Plan, console: Console) -> None:
    """The data as it was understood, the methods' forecast, the candidates, and what can't run here."""
    study, facts = plan.study, plan.data
    parameters = plan.base.get("parameters")
    size = f", {parameters / 1e6:.1f} million parameters" if isinstance(parameters, int | float) else ""
    console.print(Text(f"{study.name}: {study.model}{size}, {study.task.replace('_', ' ')}", style="bold"))
    rows = ", ".join(f"{count:,} {split}" for split, count in facts.rows.items())
    console.print(Text(f"data: {rows} rows; {words.columns(facts)}"))
    for note in facts.notes:
        console.print(Text(f"  - {note}"))
    console.print()
    figures = ("one fit", "search and seeds, at most", "memory MB")
    table = plain_table("method", *figures, right=figures)
    for label, forecast in plan.forecast.items():
        times = (words.duration(60 * forecast[key]) if key in forecast else "?" for key in ("fit_minutes", "minutes"))
        table.add_row(label, *times, words.number(forecast["memory_mb"]) if "memory_mb" in forecast else "?")
    console.print(table)
    for label, forecast in plan.forecast.items():
        if "cause" in forecast:
            console.print(Text(f"{label} can't be tuned: {forecast['cause']}", style="red"))
        if forecast.get("rows_at_once", study.fit.batch_size) < study.fit.batch_size:
            console.print(Text(f"{label}: memory holds {forecast['rows_at_once']} of {study.fit.batch_size} rows at once; their "
                               "gradients are added up", style="yellow"))
    whole = sum(forecast.get("minutes", 0.0) for forecast in plan.forecast.values())
    rest = "starting, trimming, exporting and measuring come on top"
    console.print(Text(f"tuning takes {words.duration(60 * whole)} at most; {rest}\n"))
    chains = ["+".join(trim.label for trim in chain) or "none" for chain in study.trim]
    skipped = len(study.tune) * len(study.trim) * len(study.engine) - len(plan.candidates)
    console.print(Text(f"{len(plan.candidates)} candidates: {len(study.tune)} methods × {len(study.trim)} trims × "
                       f"{len(study.engine)} engines" + (f", less {skipped} that are skipped" if skipped else "")))
    if study.smaller:
        console.print(Text(f"and {study.smaller}, untrimmed, tuned by the same methods in the same budget"))
    if study.auto:
        console.print(Text(f"and up to {study.auto.keep} of {study.auto.tries} chains tried for each method on each engine"))
    methods, engines = ([use.label for use in uses] for uses in (study.tune, study.engine))
    for head, entries in (("tune", methods), ("trim", chains), ("engine", engines)):
        console.print(Text(f"  {head:7}{', '.join(entries)}"))
    for reason, count in Counter(plan.unavailable.values()).items():
        console.print(Text(f"can't run here: {count} of them, since {reason}", style="yellow"))
    limits = ", ".join(map(str, study.require)) or "none"
    console.print(Text(f"limits: {limits}; prefer {study.prefer}"))


def show_doctor(found: dict[str, Any], console: Console) -> None:
    """What the machine has, one line each, problems last."""
    table = plain_table("", "")
    table.show_header = False
    table.add_row("python", found["python"])
    for name, number in found["packages"].items():
        table.add_row(name, number or "not installed")
    table.add_row("processor", f"{found['cpu']}, {found['cores']} cores")
    table.add_row("flags", ", ".join(found["flags"]) or "none that matters")
    table.add_row("memory", f"{found['memory_gb']} GB, {found['available_memory_mb']:,} MB available")
    table.add_row("devices", ", ".join(found["devices"]) or "none")
    table.add_row("disk", f"{found['disk']['free_mb']:,} MB free at {found['disk']['folder']}")
    for kind in ("engines", "models"):
        for name, reason in found[kind].items():
            table.add_row(f"{kind[:-1]} {name}", Text(reason or "available"))
    console.print(table)
    for problem in found["problems"]:
        console.print(Text(f"problem: {problem}", style="red"))
    if not found["problems"]:
        console.print("No problem found.")
