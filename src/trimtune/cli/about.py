"""Commands that tell what there is: parts, explain, show-batch, doctor, schema. They run nothing."""

from __future__ import annotations

from pathlib import Path

import typer

from trimtune import parts
from trimtune.cli import options as o
from trimtune.cli.app import app
from trimtune.errors import unknown


@app.command("parts")
def list_parts(json: o.Json = False) -> None:
    """List the methods, trims, engines, measures and tasks, one line each.

    Example: trimtune parts
    """
    from trimtune import screen
    from trimtune.cli import tables

    found = [(kind, name, (parts.doc(kind, name).strip().splitlines() or [""])[0])
             for kind in parts.ROOMS for name in parts.names(kind)]
    if json:
        return screen.print_json([{"kind": kind, "name": name, "says": says} for kind, name, says in found])
    table = tables.plain_table("kind", "name", "")
    for line in found:
        table.add_row(*line)
    screen.results().print(table, markup=False)
    return None


@app.command()
def explain(name: o.Part) -> None:
    """Say what a part does, when to use it, its formula and paper, and its options.

    Example: trimtune explain lora
    """
    from trimtune.study.check import allowed

    stem = name.replace("-", "_")
    kinds = [kind for kind in parts.ROOMS if stem in parts.names(kind)]
    if not kinds:
        raise unknown("part", name, {one for kind in parts.ROOMS for one in parts.names(kind)},
                      do="`trimtune parts` lists them with a line each.")
    for kind in kinds:
        typer.echo(f"{kind} {stem}\n\n{parts.doc(kind, stem)}\n")
        if kind == "method":
            low, high = parts.load(kind, stem).LEARNING_RATES
            typer.echo(f"  learning rates searched: {low:g} to {high:g}, on a log scale\n")
        config = getattr(parts.load(kind, stem), "Config", None)
        schema = config.model_json_schema() if config else {}
        for key, field in schema.get("properties", {}).items():
            says = f", default {field['default']}" if "default" in field else ""
            typer.echo(f"  {key}: {allowed(field, schema.get('$defs', {}))}{says}")


@app.command("show-batch")
def show_batch(study: o.StudyFile, rows: o.Shown = 4) -> None:
    """Show the first training rows of a language model's study as tokens, with what is learned apart from what isn't.

    Example: trimtune show-batch study.yaml --rows 2
    """
    from trimtune import screen
    from trimtune.cli import batches

    batches.show(study, rows, screen.results())


@app.command()
def doctor(runs: o.Runs = Path("runs"), json: o.Json = False) -> None:
    """Show what this machine has, which engines can run, and what to install for the others.

    Example: trimtune doctor
    """
    from trimtune import screen
    from trimtune.cli import doctor as examiner
    from trimtune.cli import tables

    found = examiner.examine(runs)
    if json:
        screen.print_json(found)
    else:
        tables.show_doctor(found, screen.results())


@app.command()
def schema() -> None:
    """Print the JSON schema of study files, for editors.

    Example: trimtune schema > study.schema.json
    """
    from trimtune import screen
    from trimtune.study import read

    screen.print_json(read.schema())
