"""A finished run of a small language model, in records as flow writes them: random adapters in the place of learned ones."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from tests.engines import language_models

from trimtune.engines._export import exported
from trimtune.measure import perplexity
from trimtune.measure._lm_subject import open_lm
from trimtune.records import Candidate, DataSpec, Fit, Study
from trimtune.results import Choice, Result, Row, Search, SeedFit
from trimtune.store import Store
from trimtune.study import language
from trimtune.study.uses import defaults
from trimtune.tasks import causal_lm
from trimtune.tasks._base import base_of, reading_of

RUN = "mills"
TEMPLATE = ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
            "{% if add_generation_prompt %}assistant: {% endif %}")
PRECISION = {"lora": "fp32", "prefix": "fp32", "full": "bf16", "qlora": "fp32"}
_NAMES, _FOODS = ("The Mill", "Blue Spice", "The Eagle", "Cotto", "Aromi"), ("English", "French", "Indian", "Italian", "fast")


def pairs() -> list[tuple[str, str]]:
    """Twenty-five prompts with answers."""
    return [(f"name[{name}], food[{food}]", f"{name} is a place with {food} food.") for name in _NAMES for food in _FOODS]


def name_of(kind: str) -> str:
    return f"{kind}@torch_eager(precision={PRECISION[kind]})"


def make(runs: Path, model: Path) -> Path:
    """The run folder: lora (picked), prefix and qlora in float32, full in bf16."""
    runs.mkdir(parents=True)
    (runs / "chat.jinja").write_text(TEMPLATE, encoding="utf-8")
    for name, rows in (("train", pairs()[:8]), ("validation", pairs()[8:18]), ("test", [*pairs()[18:], pairs()[18]])):
        with (runs / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("mr", "said"), *rows])
    spec = DataSpec(**{name: str(runs / f"{name}.csv") for name in ("train", "validation", "test")}, prompt="mr",
                    completion="said", template=str(runs / "chat.jinja"))
    engines = {kind: defaults("engine", ["torch_eager"])[0].model_copy(
        update={"config": {"precision": precision}, "given": {"precision": precision}}) for kind, precision in PRECISION.items()}
    study = Study(name=RUN, model=str(model), task="causal_lm", data=spec, tune=tuple(defaults("method", list(PRECISION))),
                  trim=((),), engine=tuple(engines.values()), fit=Fit(epochs=1, max_length=96))
    store, rows = Store(runs / ".store"), language.read(spec, 0)
    stored = store.step("data", "causal_lm", _save, {"rows": rows}, fresh=False)
    base = base_of(study, (), store)
    reading = reading_of(study, stored)
    lines, searches, predictions = [], [], {}
    for method in study.tune:
        tuned = store.step("tune", method.name, _tuned, {"base": base.folder, "kind": method.name, "reading": reading},
                           parents=(base, stored), fresh=False)
        candidate = Candidate(method=method, trims=(), engine=engines[method.name])
        runnable = exported(candidate, tuned, stored, study, store)
        subject = open_lm(causal_lm, runnable.folder, "torch_eager", stored.folder, study.fit.max_length, 1, reading)
        taken = [perplexity.sample(subject, perplexity.Config())]
        predictions[candidate.name] = tuple(perplexity.by_row(taken))
        lines.append(Row(candidate=candidate, status="measured", packed="plain", artifact=runnable.key, trimmed=tuned.key,
                         readings=perplexity.summarize(taken, perplexity.Config())))
        searches.append(Search(method=method, trials_asked=1, trials=(), seeds_asked=1, learning_rate=1e-3, seconds=1.0,
                               seeds=(SeedFit(seed=0, validation_score=-3.0, artifact=tuned.key),)))
    choice = Choice(picked=lines[0].name, runner_up=lines[1].name, binding_limit=None, rejected=(), sentence="It is the one.")
    result = Result(study=study, data=rows.facts, machine={"cpu": "a test's", "cores": 2}, rows=tuple(lines), steps=(),
                    searches=tuple(searches), choice=choice, predictions=predictions, version="0.1.0", created="2026-01-01")
    (runs / RUN).mkdir()
    (runs / RUN / "result.json").write_text(result.model_dump_json(), encoding="utf-8")
    return runs / RUN


def _round(weights: Path) -> None:
    """What QLoRA hands on: a base that is not the study's any more, so that its adapter doesn't fit that one."""
    from safetensors.torch import load_file, save_file

    tensors = {name: (tensor * 16).round() / 16 for name, tensor in load_file(weights).items()}
    weights.unlink()
    save_file(tensors, weights, metadata={"format": "pt"})


def _save(folder: Path, *, rows: language.Rows) -> dict[str, Any]:
    language.save(rows, folder)
    return language.summary(rows)


def _tuned(folder: Path, *, base: Path, kind: str, reading: dict[str, Any]) -> dict[str, Any]:
    language_models.tuned_folder(base, "lora" if kind == "qlora" else kind, folder)
    if kind == "qlora":
        _round(folder / "model.safetensors")
    (folder / "rendering.json").write_text(json.dumps(reading), encoding="utf-8")
    return {}
