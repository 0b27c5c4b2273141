"""The model card: what a stranger who finds the bundle needs to know, in plain Markdown."""

from __future__ import annotations

from typing import Any

from trimtune.report.words import worst_class
from trimtune.ship import lm_card
from trimtune.ship.source import Source

_LICENSES = {"minilm": "Apache-2.0 (sentence-transformers/all-MiniLM-L6-v2)"}


def card(source: Source, manifest: dict[str, Any]) -> str:
    """README.md of a bundle, from the run's records alone."""
    result, candidate, language = source.result, source.row.candidate, "rendering" in manifest
    labels = result.data.labels
    what = lm_card.what(source) if language else f"A text classifier with {len(labels)} labels"
    tested = len(source.rows.test) if language else len(result.truth)
    sections = [
        f"# {result.study.name}: {candidate.name}",
        (f"{what}, made from `{manifest['study']['model']}` by "
        f"[trimtune](https://pypi.org/project/trimtune/) {manifest['trimtune']}: tuned by **{candidate.method.label}**, "
        f"trimmed by **{candidate.trims_label}**, run by **{candidate.engine.label}**."),
        "## Use", lm_card.use(source, manifest) if language else _use(labels),
        *([] if language else ["## Labels", ", ".join(f"`{label}`" for label in labels)]),
        "## Measured", f"On the {tested} test rows, on {_machine(result.machine)}.", _readings(manifest["readings"]),
        "## Proven before shipping", (lm_card.parity if language else _parity)(manifest["parity"]),
        "## Data", _data(source, language), "## What was changed from the base model", _changes(source, manifest, language),
        "## Limits", "\n".join(lm_card.limits(manifest) if language else _limits(source, manifest)),
        "## License", license_of(result.study.model, str(manifest["study"]["model"])),
    ]
    return "\n\n".join(sections) + "\n"


def license_of(model: str, name: str) -> str:
    """What is known of the base model's license."""
    return (f"The base model's license holds for what is derived from it: {_LICENSES.get(model, f'see the page of `{name}`')}. "
            "The rows that it was tuned on may add terms of their own.")


def _use(labels: tuple[str, ...]) -> str:
    return ('```python\nimport trimtune\nmodel = trimtune.load("bundle/")        # this folder; every file\'s hash is checked\n'
            f'model(["a text", "another"])[0].label   # one of the {len(labels)} labels below; also .probability\n```\n\n'
            'Or, without code: `trimtune predict bundle/ "a text"`, and for files: `trimtune predict bundle/ --file rows.csv`.')


def _readings(readings: dict[str, dict[str, Any]]) -> str:
    lines = ["| reading | value | interval | n |", "|---|---:|---|---:|"]
    for name, reading in readings.items():
        unit = "" if reading["unit"] in ("", "1", "fraction", "ratio") else f" {reading['unit']}"
        absent = f"none: {reading['note'] or 'too few samples'}"
        value = absent if reading["value"] is None else f"{reading['value']:.4g}{unit}"
        known = reading["low"] is not None and reading["high"] is not None
        spread = f"{reading['low']:.4g} – {reading['high']:.4g} {reading['interval']}".strip() if known else ""
        lines.append(f"| {name} | {value} | {spread} | {reading['n']} |")
    return "\n".join(lines)


def _parity(hops: list[dict[str, Any]]) -> str:
    lines = ["The answers were followed from the fit to these files; shipping stops where they change more than allowed.",
             "", "| hop | rows | max difference | allowed | same label |", "|---|---:|---:|---:|---:|"]
    for hop in hops:
        allowed = "recorded only" if hop["allowed_difference"] is None else f"{hop['allowed_difference']:.1g}"
        difference = f"{hop['max_difference']:.2g} ({hop['unit']})"
        lines.append(f"| {hop['name']} | {hop['rows']} | {difference} | {allowed} | {hop['agreement']:.2%} |")
    return "\n".join(lines)


def _data(source: Source, language: bool) -> str:
    facts = source.result.data
    counts = ", ".join(f"{count:,} {split}" for split, count in facts.rows.items())
    notes = "".join(f"\n- {note}" for note in facts.notes)
    columns = lm_card.data(source) if language else f"Text column `{facts.text}`, label column `{facts.label}`."
    return f"Rows: {counts}. {columns}" + (f"\n{notes}" if notes else "")


def _changes(source: Source, manifest: dict[str, Any], language: bool) -> str:
    candidate = source.row.candidate
    lines = [f"- Tuned by `{candidate.method.name}` with {_config(candidate.method.config)}."]
    lines += [f"- Trimmed by `{trim.name}` with {_config(trim.config)}." for trim in candidate.trims]
    precision = f", precision: {manifest['precision']}" if manifest["precision"] else ""
    weights = {"stored": "packed on disk, unpacked when loaded"}.get(manifest["packed"], manifest["packed"])
    lines.append(f"- Exported to `{candidate.engine.name}` with {_config(candidate.engine.config)}; numerics: "
                 f"{manifest['numerics']}, weights: {weights}{precision}.")
    if threads := manifest["engine"].get("threads"):
        lines.append(f"- It answers with {threads} {'thread' if threads == 1 else 'threads'}, where the machine has as many: "
                     "with so many a single row was answered soonest.")
    if manifest["adapter"] and not language:
        lines.append("- `adapter/` holds the tuning alone, head included, in PEFT's format: "
                     "`PeftModel.from_pretrained(base, \"bundle/adapter\")`. It is the tuned model, before any trim.")
    return "\n".join(lines)


def _limits(source: Source, manifest: dict[str, Any]) -> list[str]:
    worst = worst_class(source.row)
    lines = [f"- Texts longer than {manifest['max_length']} tokens are cut.",
             "- A text about none of the labels gets one of them all the same; its probability isn't calibrated, only a hint.",
             "- The readings hold for rows like the test rows and for a machine like the one above."]
    if worst:
        lines.insert(0, f"- Worst label: {worst} of its test rows are answered right.")
    return lines


def _config(config: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in config.items()) or "no options"


def _machine(machine: dict[str, Any]) -> str:
    said = [str(machine[key]) for key in ("cpu", "processor", "gpu", "system", "platform") if machine.get(key)]
    return "; ".join(said) or "the machine in manifest.json"
