"""The run folder's files: each is written beside its place and renamed into it, so that no reader meets half a file."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from trimtune.report.tables import inside_limits, metric, why_unjudged
from trimtune.results import Result, Row

_QUALITY = {"accuracy": ("macro_f1", "calibration_error", "latency_p50_ms", "latency_p95_ms", "tokenizing_ms",
                          "throughput_rows_per_s"),
            "perplexity": ("bleu", "rouge_l", "format_valid", "forgetting", "latency_p50_ms", "first_token_ms", "tokens_per_s")}


def columns(result: Result) -> tuple[str, ...]:
    """The columns of candidates.csv."""
    quality = metric(result)
    return ("candidate", "method", "trims", "engine", "status", "cause", quality, f"{quality}_low", f"{quality}_high",
            *_QUALITY[quality], "peak_memory_mb", "private_memory_mb", "size_mb", "weights_mb", "load_ms",
            "energy_mj_per_row", "fit_seconds", "inside_limits", "tied_with_best", "verdict", "verdict_against", "verdict_words")


def write(result: Result, folder: Path) -> Path:
    """Write everything a run leaves behind into `folder` (made if absent).

    Returns:
        The path of report.html. Beside it: report.md, candidates.csv, readings.jsonl, choice.json, predictions.csv, result.json.
    """
    from trimtune.report import markdown, page

    folder.mkdir(parents=True, exist_ok=True)
    texts = {"result.json": result.model_dump_json(indent=1) + "\n", "choice.json": choice_json(result),
             "candidates.csv": candidates_csv(result), "readings.jsonl": readings_jsonl(result),
             "predictions.csv": predictions_csv(result), "report.md": markdown.text(result, folder),
             "report.html": page.html(result, folder)}
    temporary = {folder / name: folder / f".{name}.{os.getpid()}.tmp" for name in texts}
    try:
        for beside, text in zip(temporary.values(), texts.values(), strict=True):
            beside.write_text(text, encoding="utf-8", newline="\n")
        for path, beside in temporary.items():
            beside.replace(path)
    finally:
        for beside in temporary.values():
            beside.unlink(missing_ok=True)
    return folder / "report.html"


def candidates_csv(result: Result) -> str:
    """One line per candidate in the study's order; a reading that does not exist is an empty field."""
    names = columns(result)
    return _csv(names, [[_field(result, row, name) for name in names] for row in result.rows])


def _field(result: Result, row: Row, column: str) -> Any:
    quality, verdict = row.readings.get(metric(result)), result.choice.verdict(row.name)
    own: dict[str, Any] = {
        "candidate": row.name, "method": row.candidate.method.label, "trims": row.candidate.trims_label,
        "engine": row.candidate.engine.label, "status": row.status, "cause": row.cause,
        f"{metric(result)}_low": quality.low if quality else None, f"{metric(result)}_high": quality.high if quality else None,
        "inside_limits": "unknown" if why_unjudged(result, row) else str(inside_limits(result, row)).lower(),
        "tied_with_best": str(row.name in result.choice.tied).lower(), "verdict": verdict.kind if verdict else "",
        "verdict_against": verdict.against if verdict else "", "verdict_words": verdict.words if verdict else ""}
    return own[column] if column in own else row.value(column)


def readings_jsonl(result: Result) -> str:
    """One JSON object per reading: the candidate, whether its figures are real, and the reading's own fields."""
    lines = [{"candidate": row.name, "packed": row.packed, **reading.model_dump(), "version": result.version}
             for row in (*result.rows, *result.rivals) for reading in row.readings.values()]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def choice_json(result: Result) -> str:
    return json.dumps(result.choice.model_dump(), ensure_ascii=False, indent=2) + "\n"


def predictions_csv(result: Result) -> str:
    """One line per test row: its number from 0, the true label, then each candidate's answer; of a language model
    one line per prompt, with its rows' negative log-likelihood in nats."""
    names = list(result.predictions)
    columns_: list[Any] = [result.truth, *(result.predictions[name] for name in names)]
    lines = [[index, *(_label(result, column[index]) if index < len(column) else "" for column in columns_)]
             for index in range(max(map(len, columns_)))]
    return _csv(("row", "truth", *names), lines)


def _label(result: Result, answer: int | tuple[float, int]) -> str:
    if isinstance(answer, tuple):
        return f"{answer[0]:.4f}"
    return result.data.labels[answer] if 0 <= answer < len(result.data.labels) else str(answer)


def _csv(header: tuple[str, ...], lines: list[list[Any]]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(lines)
    return out.getvalue()
