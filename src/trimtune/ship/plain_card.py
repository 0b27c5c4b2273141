"""The README of a plain folder: what it is, how transformers, peft or vLLM load it, and what was proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtune import parts
from trimtune.ship import adapters, lm_card
from trimtune.ship.card import license_of
from trimtune.ship.source import Source
from trimtune.study import language

_LOAD = """\
```python
from transformers import AutoTokenizer, {auto}
{peft}
tokenizer = AutoTokenizer.from_pretrained("{name}")
model = {auto}.from_pretrained({given})
{adapter}{example}
```"""


def card(source: Source, folder: Path, hop: Any, format_: str) -> str:
    """README.md of a folder of the format `peft` or `merged`."""
    result, candidate = source.result, source.row.candidate
    task: Any = parts.load("task", result.study.task)
    base, name = adapters.base_name(result.study.model), result.study.name
    is_adapter, is_lm = format_ == "peft", task.rows is language
    labels = "" if is_lm else f", num_labels={len(result.data.labels)}"
    load = _LOAD.format(
        auto=task.AUTO_CLASS, name=name, peft="from peft import PeftModel\n" if is_adapter else "",
        given=f'"{base}"{labels}' if is_adapter else f'"{name}"',
        adapter=f'model = PeftModel.from_pretrained(model, "{name}")\n' if is_adapter else "",
        example=_labels_set(source) * (is_adapter and not is_lm) + task.example(source.tuned.folder, result.study.fit.max_length))
    what = (f"The adapter of `{base}` tuned by **{candidate.method.label}**, in PEFT's layout" if is_adapter else
            f"`{base}` tuned by **{candidate.method.label}**, trimmed by **{candidate.trims_label}**, as plain weights of "
            "transformers in float32")
    sections = [f"# {name}: {candidate.method.label}", f"{what}. Written by trimtune from the candidate {source.row.name}.",
                "## Use", f"`{name}` is this folder.", load]
    if is_lm:
        sections += [lm_card.asking(source), "## Serve", lm_card.served(folder if is_adapter else None, base, name, f"{name}/")]
    sections += ["## Proven before shipping", f"{hop}.", "## Measured",
                 (f"The study measured the candidate on its engine, {candidate.engine.label}, and not this folder; trims that an "
                  "engine realizes (int8) aren't in it."), "## License", license_of(result.study.model, base)]
    return "\n\n".join(sections) + "\n"


def _labels_set(source: Source) -> str:
    names = dict(enumerate(source.result.data.labels))
    return f"model.config.id2label = {names!r}\n"
