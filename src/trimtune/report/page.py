"""report.html: one page that opens from disk, asks the network for nothing, and forbids itself to by its own policy."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtune.report import drawing, facts, pareto, rivals, search_picture, tables, tuning, words
from trimtune.results import Result

_TEMPLATES = Path(__file__).parent / "templates"
_TILES = ("accuracy", "perplexity", "bleu", "format_valid", "forgetting", "latency_p50_ms", "size_mb", "throughput_rows_per_s",
          "tokens_per_s", "peak_memory_mb", "fit_seconds")


@dataclass(frozen=True)
class Tile:
    """One key figure of the picked candidate."""

    label: str
    text: str
    detail: str
    limit: str


def html(result: Result, folder: Path) -> str:
    """The page as text; `folder` is the run's, as its commands name it.

    Everything from the result is escaped by the template; only the SVGs are taken as they are."""
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["breakable"] = _breakable
    style, script = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "sort.js"))
    return environment.get_template("report.html.j2").render(
        **_content(result), commands=facts.commands(result, folder), words=words, style=Markup(style), script=Markup(script),
        style_hash=_policy_hash(style), script_hash=_policy_hash(script))


def _breakable(name: str) -> Any:
    """A candidate's or method's name, escaped, with places where a narrow column may break it."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([,(_+])", r"\1<wbr>", str(escape(name))).replace("@", "<wbr>@"))


def _policy_hash(text: str) -> str:
    """The source expression by which a content security policy allows exactly this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _content(result: Result) -> dict[str, Any]:
    from markupsafe import Markup

    lines, keyed = tables.lines(result), drawing.keys(result)
    pictures = [(words.title(cost), *map(Markup, drawn), _unplotted(result, lines, cost))
                for cost in ("latency_p50_ms", "size_mb")
                if (drawn := pareto.picture(result, lines, cost, keyed, ((540, 360), (340, 310))))]
    further = tables.further(result)
    return {
        "result": result, "metric": tables.metric(result), "study": result.study, "choice": result.choice, "lines": lines,
        "tiles": _tiles(result), "limits": [words.limit(result, limit) for limit in result.study.require],
        "verdicts": result.choice.verdicts, "trimming": result.choice.verdict(result.choice.picked or ""),
        "tied": [name for name in result.choice.tied if name != result.choice.picked],
        "columns": [(name, words.title(name), tables.samples(result, name), tables.better(result, name))
                    for name in tables.shown(result)],
        "simulated": [(line, tables.cells(result, line.row, tables.COSTS, real=False)) for line in lines if line.simulated],
        "further": [words.title(name) for name in further],
        "further_lines": [(line, tables.cells(result, line.row, tuple(further))) for line in lines
                          if further and line.row.readings],
        "pictures": pictures, "keyed": keyed, "measured": sum(row.status == "measured" for row in result.rows),
        "methods": [(method, Markup(search_picture.picture(result, search, keyed)))
                    for method, search in zip(tuning.methods(result), result.searches, strict=True)],
        "failures": tables.failures(result), "step_costs": tuning.step_costs(result), "protocols": facts.protocols(result),
        "machine": facts.machine(result), "asked": facts.asked(result), "splits": facts.split_rows(result),
        "answers": facts.answers(result),
        "tried": tables.tried(result), "baselines": tables.baselines(result), "baseline_words": tables.baselines_words(result),
        "rivals": rivals.lines(result), "rivals_words": rivals.told(result),
        "baseline_heads": [words.title(name) for name in tables.of_baselines(result)]}


def _tiles(result: Result) -> list[Tile]:
    """The picked candidate's key figures, each with its interval or n, and the limit that it had to keep."""
    if result.choice.picked is None:
        return []
    row, found = result.row(result.choice.picked), []
    names = [*_TILES, *(limit.reading for limit in result.study.require if limit.reading not in _TILES)]
    for name in dict.fromkeys(names):
        reading = row.readings.get(name)
        if reading is not None:
            limits = [words.bound(result, limit) for limit in result.study.require if limit.reading == name]
            detail = ", ".join(filter(None, [words.interval(reading), f"n = {reading.n:,}" if reading.n > 1 else ""]))
            found.append(Tile(words.title(name), words.value(reading), reading.note if reading.value is None else detail,
                              f"limit {words.listed(limits)}" if limits else ""))
    return found


def _unplotted(result: Result, lines: list[tables.Line], cost: str) -> str:
    """What the reader can't see in a picture: candidates left out, limits beyond its edges."""
    missing = sum(line.row.status == "measured" for line in lines) - len(pareto.points(result, lines, cost))
    told = [f"{words.count(missing, 'measured candidate')} not drawn: simulated, or without this reading."] if missing else []
    told += [f"{words.listed(far)} {'lies' if len(far) == 1 else 'lie'} below the picture."] if (
        far := pareto.undrawn(result, lines, cost)) else []
    told += [f"The limit {words.limit(result, limit)} lies outside the picture." for limit in pareto.beyond(result, lines, cost)]
    told += [f"The limit {words.limit(result, limit)} is no line: each candidate has its own."
             for limit in result.study.require if limit.parent and limit.reading in (cost, tables.metric(result))]
    return " ".join(told)
