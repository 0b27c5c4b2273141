"""A first study for a data file: what can be seen in the rows is filled in, the rest is explained in comments."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.records import Budget, DataSpec, Fit
from trimtune.results import DataFacts
from trimtune.study import data, language, sources
from trimtune.study.formats import COMPLETION
from trimtune.study.read import MODEL, TASK, TRIM, TUNE, preferences
from trimtune.study.text_file import shown
from trimtune.study.uses import able

NAMES = {"train": ("train", "training"), "validation": ("validation", "valid", "val", "dev", "development"),
         "test": ("test", "testing")}
"""what the files of the splits are called: the name alone, or as a word in the file's name"""
LANGUAGE = "causal_lm"
_COLUMNS = {"labels": ("text", "label"), "text": ("text",), "pairs": ("prompt", "completion"), "chat": ("messages",)}
"""kind of rows → the keys of `data` that name their columns"""


def draft(path: Path, folder: Path | None = None) -> str:
    """A commented study as YAML, which `read` accepts as long as it lies in `folder`.

    Args:
        path: a data file, a folder with files named train, val (or validation, dev) and test, or a bundled set's name.
        folder: where the study will lie; the current folder if None. Paths inside it are written relative to it.

    Raises:
        TrimtuneError: as for reading the data; a folder without a training file.
    """
    spec, facts = look(str(path))
    return study_text(spec, facts, (folder or Path.cwd()) / "study.yaml", free_name(spec.train), MODEL)


def look(source: str, text: str | None = None, label: str | None = None,
         task: str | None = None) -> tuple[DataSpec, DataFacts]:
    """The data's spec, with the other splits' files that lie beside it, and what is in the rows.

    A file beside it whose rows can't be used (no labels, say) is left out, and `notes` says why.

    Args:
        source: a file, a folder, a hub id or a bundled set.
        text, label: columns, where they can't be seen.
        task: what the rows are for, where it can't be seen.
    """
    spec, left_out = DataSpec(train=source, text=text, label=label), []
    if source not in sources.bundled():
        path = Path(source).expanduser()
        train = sources.located(str(_train_in(path) if path.is_dir() else path), Path.cwd(), "data")
        spec = spec.model_copy(update={"train": train})
    facts = _read(spec, task)
    task = "text_classification" if facts.kind == "labels" else LANGUAGE
    for split in ("validation", "test"):
        beside = _sibling(Path(spec.train), split) if Path(spec.train).is_file() else None
        if beside:
            try:
                wider = spec.model_copy(update={split: str(beside)})
                spec, facts = wider, _read(wider, task)
            except TrimtuneError as error:
                left_out.append(f"{split}: {beside.name} is left out: {error.given}")
    return spec, facts.model_copy(update={"notes": (*facts.notes, *left_out)})


def _read(spec: DataSpec, task: str | None) -> DataFacts:
    """What is in the rows: labels or, where no column looks like one, what a language model is tuned on."""
    if task == LANGUAGE:
        return language.read(spec, seed=0).facts
    try:
        return data.read(spec, seed=0).facts
    except TrimtuneError as error:
        if task or spec.text or spec.label:
            raise
        try:
            facts = language.read(spec, seed=0).facts
        except TrimtuneError:
            raise error from None
        alone = len(sources.opened(spec)["train"].columns) == 1
        if (facts.kind == "pairs" and facts.label.lower() not in COMPLETION) or (facts.kind == "text" and not alone):
            hint = "If these are rows of a language model, say so: --task causal-lm."
            raise TrimtuneError(error.given, error.allowed, f"{error.do} {hint}") from None
        return facts


def study_text(spec: DataSpec, facts: DataFacts, out: Path, name: str, model: str) -> str:
    """A commented study; paths are relative to the folder of `out`."""
    budget, fit = Budget.model_validate({}), Fit.model_validate({})
    labelled = facts.kind == "labels"
    task, example = (TASK, MODEL) if labelled else (LANGUAGE.replace("_", "-"), "openai-community/gpt2")
    model = example if model == MODEL else _relative(os.path.abspath(model), out) if os.path.isdir(model) else model
    labels = ", ".join(facts.labels[:8]) + (", …" if len(facts.labels) > 8 else "")
    comments = [*([f"{len(facts.labels)} labels: {labels}"] if labelled else []), *facts.notes]
    columns = dict(zip(_COLUMNS[facts.kind], (facts.text, facts.label), strict=False))
    where = [f"{key}: {_scalar(_relative(value, out) if key in sources.SPLITS else value)}"
             for key, value in {**spec.model_dump(exclude={"text", "label"}), "loss": None, **columns}.items() if value]
    models = (f"`{MODEL}` is embedded; or a folder with config.json and model.safetensors; or a hub id" if labelled else
              "a hub id, or a folder with config.json, model.safetensors and a tokenizer")
    class_weights = f", class_weights: {fit.class_weights}" if labelled else ""
    loss = 'accuracy: ">= parent - 0.01"' if labelled else 'perplexity: "<= parent + 2%"'
    return f"""\
# What to try on your rows, and what must hold.
# `trimtune plan {_comment(out.name)}` shows what this means, `trimtune run {_comment(out.name)}` runs it.
name: {_scalar(name)}
model: {_scalar(model)}    # {models}
# smaller: FOLDER    # the next smaller model off the shelf, tuned alike and measured beside it
task: {task}

# {facts.rows['train']:,} training, {facts.rows['validation']:,} validation and {facts.rows['test']:,} test rows.
{_lines(f"# {_comment(comment)}" for comment in comments)}data:
{_lines(f"  {line}" for line in where)}
# Ways of tuning; each gets the same budget and its own learning rate. With settings: {{lora: {{r: 16}}}}
# Known: {_known('method', task)}
tune: [{', '.join(able('method', TUNE, task.replace('-', '_')))}]

# Ways of making it smaller; [a, b] is a chain, auto searches chains. Known: none, {_known('trim', task)}
trim: [{', '.join(TRIM)}]

# Where the result runs: every engine that is installed here, unless you name some; `trimtune parts` tells which must be named.
# engine: [{_known('engine', task)}]

# What every fit shares:
# fit: {{epochs: {fit.epochs}, batch_size: {fit.batch_size}, max_length: {fit.max_length}, patience: {fit.patience}, \
precision: {fit.precision}{class_weights}, packing: {fit.packing}}}

# For each method: learning rates tried, fits of the best one, cap of its search in minutes.
budget: {{trials: {budget.trials}, seeds: {budget.seeds}, minutes: {budget.minutes:g}}}

# Limits that the choice must hold, such as:
# require: {{size_mb: "<= 30", latency_p50_ms: "<= 8", {loss}}}    # parent: the same without trims
prefer: quality    # what decides among those inside the limits: {', '.join(preferences(task.replace('-', '_')))}
seed: 0
"""


def _known(kind: str, task: str) -> str:
    return ", ".join(able(kind, parts.names(kind), task.replace("-", "_")))


def _train_in(folder: Path) -> Path:
    found = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in sources.EXTENSIONS and _has(file.stem, "train")]
    plain = [file for file in found if file.stem.lower() in NAMES["train"]] or found
    if len(plain) != 1:
        what = f"several training files ({', '.join(file.name for file in plain)})" if plain else "no training file"
        raise TrimtuneError(f"{shown(folder)}: the folder has {what}.",
                            f"Allowed: one file named train ({', '.join(sources.EXTENSIONS)}), beside it val or dev, and test.",
                            "Give the file itself: trimtune init FOLDER/FILE.")
    return plain[0]


def _has(stem: str, split: str) -> bool:
    return bool(re.search(rf"(^|[\W_])({'|'.join(NAMES[split])})(set|data)?($|[\W_])", stem, re.IGNORECASE))


def _sibling(train: Path, split: str) -> Path | None:
    """The file beside `train` whose name is the same but for the split's word."""
    word = re.compile(rf"(?<![a-zA-Z])({'|'.join(NAMES['train'])})(?=(set|data)?([^a-zA-Z]|$))", re.IGNORECASE)
    if not word.search(train.stem):
        return None
    wanted = [word.sub(name, train.stem, count=1).lower() for name in NAMES[split]]
    there = {file.stem.lower(): file for file in sorted(train.parent.iterdir()) if file.suffix.lower() in sources.EXTENSIONS}
    return next((there[name] for name in wanted if name in there), None)


def free_name(source: str) -> str:
    """A study name from a source: `mail/train.csv` gives mail, `mail_train.csv` too."""
    path = Path(os.path.abspath(source)) if os.path.exists(source) else Path(source.split(":")[0])
    generic = re.fullmatch(r"(train|training)(set|data)?", path.stem, re.IGNORECASE)
    stem = path.parent.name if generic else re.sub(r"[\W_]+(train|training)(set|data)?$", "", path.stem, flags=re.IGNORECASE)
    safe = re.sub(r"[^\w-]+", "-", stem).strip("-_")[:60]
    return safe if safe and not safe.isdigit() else f"study-{safe}".strip("-")


def _relative(name: str, out: Path) -> str:
    path, folder = Path(name), out.absolute().parent
    return os.path.relpath(path, folder) if path.is_absolute() and path.is_relative_to(folder) else name


def _scalar(text: str) -> str:
    """Plain where YAML reads it back as the same text, else in double quotes."""
    plain = re.fullmatch(r"[A-Za-z_./][\w./ -]*", text, re.ASCII) and text == text.strip() and \
        text.lower() not in ("null", "true", "false")
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _comment(text: str) -> str:
    return "".join(char for char in " ".join(text.split()) if char.isprintable())


def _lines(items: Iterable[str]) -> str:
    return "".join(f"{item}\n" for item in items)
