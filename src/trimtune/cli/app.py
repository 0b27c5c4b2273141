"""The command line: parse, call, print. What a command means is said in its help, with an example.

Nothing heavy is imported before a command needs it: `--help`, `parts` and `choose` answer at once.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import typer

from trimtune import exits
from trimtune.cli import options as o
from trimtune.errors import StepFailed, TrimtuneError

app = typer.Typer(
    name="trimtune", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Begin with: trimtune init my_rows.csv, then trimtune run study.yaml. Exit status: 0 done, 1 failed, 2 bad input.")


def main(words: list[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    words = sys.argv[1:] if words is None else words
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a label must not stop the printing in a terminal without UTF-8
    command = typer.main.get_command(app)
    return exits.guarded(lambda: command.main(words, prog_name="trimtune", standalone_mode=False), words)


@app.callback()
def about(_: o.Version = False) -> None:
    """Tune a pretrained model to your task, trim it to your budget, and know what each choice cost you."""


@app.command()
def init(data: o.DataOrFolder, out: o.StudyOut = Path("study.yaml"), name: o.StudyName = None, model: o.Model = "minilm",
         text: o.TextColumn = None, label: o.LabelColumn = None, task: o.TaskSeen = None) -> None:
    """Look at your rows and write a study file with comments.

    Example: trimtune init data/train.csv

    Example: trimtune init pairs.jsonl --model openai-community/gpt2
    """
    from trimtune import screen
    from trimtune.report import words
    from trimtune.ship.stream import whole
    from trimtune.study import init as drafted
    from trimtune.study import read

    if out.exists():
        raise TrimtuneError(f"{out} exists.", "Nothing is overwritten.", "Choose another with -o FILE, or move it away.")
    spec, facts = drafted.look(data, text, label, task.replace("-", "_") if task else None)
    content = drafted.study_text(spec, facts, out, name or drafted.free_name(data), model)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out, overwrite=False) as file:
        file.write(content)
    try:
        read.read(out)
    except TrimtuneError:
        out.unlink()
        raise
    rows = ", ".join(f"{count:,} {split}" for split, count in facts.rows.items())
    console = screen.results()
    console.print(f"Wrote {out}: {rows} rows; {words.columns(facts)}.", markup=False)
    for note in facts.notes:
        console.print(f"  - {note}", markup=False)
    console.print(f"Next: trimtune plan {out}   then: trimtune run {out}", markup=False)


@app.command()
def plan(study: o.StudyFile, runs: o.Runs = Path("runs"), full: o.Full = False, json: o.Json = False) -> None:
    """Show what a run would do, its forecast time and memory, and what can't run here.

    The first time it times a few real steps of each method, which takes some seconds per method.

    Example: trimtune plan study.yaml --full
    """
    from trimtune import flow, screen
    from trimtune.cli import tables
    from trimtune.study import read

    asked = read.read(study)
    with screen.watching(quiet=json) as watch:  # the notes on the data are part of what is printed below
        found = flow.plan(asked, runs, lambda event: None if event["kind"] == "note" else watch(event))
    if json:
        return screen.print_json({**found.model_dump(mode="json"), "candidates": [one.name for one in found.candidates]})
    console = screen.results()
    tables.show_plan(found, console)
    if full:
        import yaml

        console.print("\nEvery setting:\n", markup=False)
        print(yaml.safe_dump(found.study.model_dump(mode="json"), sort_keys=False, allow_unicode=True), end="")
    return None


@app.command()
def run(study: o.StudyFile, runs: o.Runs = Path("runs"), quiet: o.Quiet = False, json: o.Json = False,
        open_: o.Open = None) -> None:
    """Tune, trim, export, measure, choose, report. Run it again to continue after a stop; nothing is done twice.

    Example: trimtune run study.yaml
    """
    from trimtune import flow, screen
    from trimtune.cli import tables
    from trimtune.study import read

    asked = read.read(study)
    with screen.watching(quiet or json) as watch:
        result = flow.run(asked, runs, watch)
    report = runs / asked.name / "report.html"
    if json:
        screen.print_json({**_choice(result), "run": str(runs / asked.name), "report": str(report), "seconds": result.seconds})
    else:
        tables.show_result(result, screen.results(), str(report))
        _open(report, open_)
    if not any(row.status == "measured" for row in result.rows):
        raise StepFailed("No candidate could be measured; the report says why for each.")


@app.command()
def choose(run: o.RunFolder, require: o.Require = None, prefer: o.Preferred = None, save: o.Save = False,
           json: o.Json = False) -> None:
    """Choose again under other limits, at once, from what was measured.

    Example: trimtune choose runs/helpdesk --require "size_mb<=25" --require "latency_p50_ms<=5"
    """
    from trimtune import flow, screen
    from trimtune.cli import tables
    from trimtune.ship.source import read_result
    from trimtune.study import limits

    asked = None if require is None else [limits.parse(text) for text in require]
    result = flow.rechoose(read_result(run), asked, prefer)
    if save:
        from trimtune.report import files

        files.write(result, run)
    if json:
        screen.print_json(_choice(result))
        return
    tables.show_result(result, screen.results(), str(run / "report.html") if save else "")
    if not save:
        typer.echo("\nNot kept: with --save the report shows this choice and `trimtune ship` takes it.")


@app.command()
def report(run: o.RunFolder, open_: o.Open = None) -> None:
    """Make a run's report anew from its records.

    Example: trimtune report runs/helpdesk --open
    """
    from trimtune.report import files
    from trimtune.ship.source import read_result

    path = files.write(read_result(run), run)
    typer.echo(f"Report: {path}")
    _open(path, open_)


@app.command()
def ship(run: o.RunFolder, out: o.BundleOut, candidate: o.Named = None, format_: o.Shipped = "bundle", quiet: o.Quiet = False,
         json: o.Json = False) -> None:
    """Write a bundle, or another format, that is proven to answer as what was measured.

    Example: trimtune ship runs/helpdesk -o bundle/

    Example: trimtune ship runs/helpdesk -o merged/ --format merged
    """
    from trimtune import screen
    from trimtune.cli.shipping import show
    from trimtune.ship import bundle

    with screen.watching(quiet or json) as watch:
        manifest = bundle.ship(run, out, candidate, watch, format_)
    if json:
        return screen.print_json({"out": str(out), **manifest})
    return show(manifest, out)


@app.command()
def predict(bundle: o.Bundle, texts: o.Texts = None, file: o.Rows = None, column: o.Column = None, format_: o.Shape = None,
            out: o.AnswersOut = None, overwrite: o.Overwrite = False, max_new: o.AnswerLength = None) -> None:
    """Answer texts with a bundle. A file's rows keep their columns and get label and probability; of a language model an answer.

    Example: trimtune predict bundle/ "my invoice is wrong"

    Example: trimtune predict bundle/ --file mails.csv -o answered.csv
    """
    from trimtune.cli.predicting import predict as answer

    answer(bundle, texts or [], file, column, format_, out, overwrite, max_new)


@app.command()
def chat(folder: o.LanguageModel, system: o.System = "", max_new: o.MaxNew = 200) -> None:
    """Talk with a bundle or a folder of a language model: answers are streamed, greedily decoded. A pipe's lines
    are said in turn, commands too; for an answer per row, `trimtune predict --file`.

    Example: trimtune chat fitted/

    Example: echo "name[Blue Spice], area[riverside]" | trimtune chat fitted/
    """
    from trimtune.cli.chatting import chat as talk

    talk(folder, system, max_new)


@app.command()
def tune(train: o.Data, out: o.FitOut, method: o.Method = "lora", set_: o.Settings = None, model: o.Model = "minilm",
         lr: o.LearningRate = None, epochs: o.Epochs = 4, batch_size: o.BatchSize = 32, max_length: o.MaxLength = 128,
         precision: o.Precision = "auto", patience: o.Patience = 3, class_weights: o.ClassWeights = "none",
         packing: o.Packing = "auto", seed: o.Seed = 0, validation: o.Validation = None, test: o.Test = None,
         text: o.TextColumn = None, label: o.LabelColumn = None,
         data: o.DataKeys = None, task: o.Task = "text-classification", quiet: o.Quiet = False, json: o.Json = False) -> None:
    """Fit one method once, without search or trims, and save the model at its best epoch by validation.

    A stopped or killed fit goes on from its last checkpoint with the same command. Under torchrun all processes make one fit
    together (adapters average gradients, full fits are sharded); the batch size counts the rows of all.

    Example: trimtune tune train.csv --method lora --set r=16 --lr 1e-3 --out fitted/

    Example: trimtune tune pairs.csv --task causal-lm --model openai-community/gpt2 --data prompt=question --out fitted/

    Example: torchrun --nproc-per-node 2 -m trimtune tune train.csv --out fitted/
    """
    from trimtune import api, screen
    from trimtune.tune.parallel import launched

    first = launched()[0] == 0
    with screen.watching(quiet or json or not first) as watch:
        columns = {name: column for name, column in (("text", text), ("label", label)) if column}
        found = api.tune(train, out=out, model=model, method=method, config=_settings(set_ or []), learning_rate=lr,
                         epochs=epochs, batch_size=batch_size, max_length=max_length, precision=precision, patience=patience,
                         class_weights=class_weights, packing=packing, seed=seed, validation=validation, test=test,
                         data={**columns, **_settings(data or [], "--data", "prompt=question")}, task=task, watch=watch)
    if json and first:
        return screen.print_json(found)
    notes = found.pop("notes", [])
    for key, value in found.items():
        if isinstance(value, dict):
            value = ", ".join(f"{count:,} {split}" for split, count in value.items())
        typer.echo(f"{key:20} {f'{value:.6g}' if isinstance(value, float) else value}")
    for note in notes:
        typer.echo(f"  - {note}")
    return None


def _settings(given: list[str], option: str = "--set", example: str = "r=16") -> dict[str, Any]:
    """`["r=16", "targets=[query, value]"]` as a mapping; values are read as YAML."""
    import yaml

    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise TrimtuneError(f"{option} {text}: this is no setting.", f"Allowed: {option} KEY=VALUE.",
                                f"Write for instance {option} {example}.")
        try:
            found[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise TrimtuneError(f"{option} {text}: the value can't be read.",
                                "Allowed: a number, a word, or a list: [query, value].",
                                "Put the whole setting into quotes.") from None
    return found


def _choice(result: Any) -> dict[str, Any]:
    chosen: dict[str, Any] = result.choice.model_dump(mode="json")
    return {**chosen, "require": [str(limit) for limit in result.study.require], "prefer": result.study.prefer}


def _open(report: Path, wanted: bool | None) -> None:
    """Show the page, unless there is no screen to show it on (a browser in the terminal would be in the way)."""
    import webbrowser

    screen = bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) or sys.platform in ("darwin", "win32")
    if wanted or (wanted is None and screen and sys.stdout.isatty()):
        webbrowser.open(report.resolve().as_uri())
