"""The study that `trimtune init` writes: what can be seen in the data is filled in, the rest is the defaults with a word."""

from __future__ import annotations

import json
import os
from pathlib import Path

from trimtune.errors import TrimtuneError
from trimtune.records import DataFacts, DataSpec
from trimtune.study import data, sources
from trimtune.study.check import quoted

_OTHERS = {"validation": ("validation", "valid", "val", "dev"), "test": ("test",)}


def look(source: str, text: str | None, label: str | None) -> tuple[DataSpec, DataFacts]:
    """The data's spec, with the files of other splits that lie beside it, and what is in it.

    Args:
        source: a file, a folder with train.csv (and validation, test), a hub id or a bundled set.
    """
    given = source
    path = Path(source).expanduser()
    if source not in sources.bundled() and path.is_dir():
        train = _file(path, ("train", "training"))
        if train is None:
            raise TrimtuneError(f"{quoted(source)} is a folder without a train file.",
                                f"Allowed: a folder with train{{{','.join(sources.EXTENSIONS)}}}, or one file.",
                                "Give the file itself.")
        path, given = train, str(train)
    spec = {"train": given, "text": text, "label": label}
    if path.is_file() and path.stem.lower() in ("train", "training"):
        spec |= {split: str(found) for split, names in _OTHERS.items() if (found := _file(path.parent, names))}
    whole = data.read(DataSpec(**{key: value for key, value in spec.items() if value is not None}), seed=0)
    return DataSpec(**{key: value for key, value in spec.items() if value is not None}), whole.facts


def study_text(spec: DataSpec, facts: DataFacts, out: Path, name: str, model: str) -> str:
    """A commented study file; paths are relative to the folder of `out`."""
    lines = [f"train: {_path(spec.train, out)}"]
    lines += [f"{split}: {_path(given, out)}" for split in ("validation", "test") if (given := getattr(spec, split))]
    if spec.train not in sources.bundled():
        lines += [f"text: {json.dumps(facts.text, ensure_ascii=False)}", f"label: {json.dumps(facts.label, ensure_ascii=False)}"]
    rows = ", ".join(f"{count:,} {split}" for split, count in facts.rows.items())
    notes = "".join(f"# - {' '.join(note.split())}\n" for note in facts.notes)
    labels = ", ".join(" ".join(label.split()) for label in facts.labels[:12]) + (", …" if len(facts.labels) > 12 else "")
    return f"""\
# A study: one question to trimtune. `trimtune plan {out.name}` shows what it asks, `trimtune run {out.name}` answers it.
# Seen in the data: {rows} rows; {len(facts.labels)} labels: {labels}
{notes}
name: {json.dumps(name, ensure_ascii=False)}
model: {json.dumps(model, ensure_ascii=False)}                # minilm is embedded; or a model folder, or a hub id 'owner/name'
task: text-classification
data:
  {(chr(10) + '  ').join(lines)}

tune: [head, full, lora, prefix, prompt]   # ways of tuning; with settings: {{lora: {{r: 16}}}}. `trimtune parts` lists all
trim: [none, int8]                         # what is made smaller; a chain in brackets: [prune_ffn, int8]
# engine: [torch_eager, onnx_runtime]      # left out: every engine that is installed here

# fit: {{epochs: 4, batch_size: 32, max_length: 128}}
budget: {{trials: 6, seeds: 3, minutes: 20}} # the same for each method: learning rates tried, final fits, cap in minutes

# require:                                 # what the pick must keep; leave out to get the best
#   size_mb: "<= 30"
#   latency_p95_ms: "<= 10"
prefer: quality                            # or latency, size, cost: what decides among those inside the limits
"""


def free_name(source: str) -> str:
    """A study name from a source: `mail/train.csv` → mail."""
    path = Path(source).expanduser().resolve() if os.path.exists(source) else Path(source)
    stem = path.parent.name if path.stem.lower() in ("train", "training") and path.is_file() else path.stem
    kept = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in stem).strip("-_")
    return kept[:60] or "study"


def _file(folder: Path, stems: tuple[str, ...]) -> Path | None:
    return next((path for stem in stems for path in sorted(folder.iterdir())
                 if path.stem.lower() == stem and path.suffix.lower() in sources.EXTENSIONS), None)


def _path(name: str, out: Path) -> str:
    if name in sources.bundled() or sources.is_hub(name):
        return name
    whole = Path(name).expanduser().resolve()
    relative = os.path.relpath(whole, out.parent.resolve())
    return json.dumps(str(whole) if relative.startswith("../../..") else relative, ensure_ascii=False)
