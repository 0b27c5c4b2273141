"""What int8_qat gains over int8: accuracy, agreement with the parent and distance from it, on each engine.

    python bench/qat.py --seeds 3 --json bench/results/qat.json
    python bench/qat.py --parent prune_ffn prompt --engines torch_eager

MiniLM is tuned on the help desk set (or found in --home, tuned before); `--parent` names what stands before int8: a method, or
a trim of the fully tuned model. A fit mends more than rounding does, so it stands beside its control: `refit` is the same fit in
plain floats, made int8 afterwards. What int8_qat has over `refit` is what learning with the rounding gains. Speed is not
measured, since the engines run the same int8 for all three.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from trimtune import api, parts
from trimtune.measure import _machine
from trimtune.records import DataSpec
from trimtune.ship.predictor import logits_of
from trimtune.store import link_tree
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.trim import int8_qat
from trimtune.trim._model_folder import write
from trimtune.tune.recovery import Setting, recover

RATES = {"prompt": 1e-2, "prefix": 1e-2, "lora": 2e-3}
HEAD = ("parent", "engine", "trim", "seed", "accuracy", "agreement", "KL", "moved")
_LENGTH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parent", nargs="*", default=["full"], help="full, lora, prefix, prompt, or a trim such as prune_ffn")
    parser.add_argument("--engines", nargs="*", default=["torch_eager", "onnx_runtime", "openvino_ir"])
    parser.add_argument("--seeds", type=int, default=1, help="of the fits of refit and int8_qat")
    parser.add_argument("--config", type=json.loads, default={}, help='of int8_qat, such as {"teacher": 1}')
    parser.add_argument("--home", type=Path, help="where tuned models are kept, and found again")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    config, found = int8_qat.Config(**asked.config), []
    with TemporaryDirectory() as scratch:
        home = asked.home or Path(scratch)
        (home / "rows").mkdir(parents=True, exist_ok=True)
        data.save(data.read(DataSpec(train="helpdesk"), seed=0), home / "rows")
        print("  ".join(f"{head:>12}" for head in HEAD))
        for name in asked.parent:
            for line in compared(name, home, Path(scratch) / name, asked.engines, range(asked.seeds), config):
                found.append(line)
                print("  ".join(f"{cell!s:>12}" for cell in line.values()), flush=True)
    if asked.json:
        told = {"machine": _machine.describe(), "config": config.model_dump(), "rows": 480, "found": found}
        asked.json.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def compared(name: str, home: Path, scratch: Path, engines: list[str], seeds: range,
             config: int8_qat.Config) -> Iterator[dict[str, Any]]:
    """A line for the parent in float32 (PyTorch), and then for each engine int8, and per seed refit and int8_qat."""
    source, rows = parent_of(name, home), home / "rows"
    wanted_NC = answered(source, rows, "torch_eager", "plain", scratch / "parent")
    yield told(name, "torch_eager", "none", "", wanted_NC, wanted_NC, rows)
    made = {("int8", ""): source}
    for seed in seeds:
        for trim in ("refit", "int8_qat"):
            made[trim, f"{seed}"] = fitted(trim, source, scratch / f"{trim}-{seed}", config,
                                           Setting(rows, max_length=_LENGTH, seed=seed))
    for engine in engines:
        for (trim, at), folder in made.items():
            logits_NC = answered(folder, rows, engine, "int8", scratch / f"{engine}-{trim}-{at}")
            yield told(name, engine, trim, at, wanted_NC, logits_NC, rows)


def parent_of(name: str, home: Path) -> Path:
    """The model folder that int8 is made of, in `home`."""
    folder, part = home / f"tuned-{name}", name if name in ("full", *RATES) else ""
    if folder.exists():
        return folder
    if part:
        rate = RATES.get(part, 2e-4)
        api.tune("helpdesk", model="minilm", method=part, learning_rate=rate, epochs=3, max_length=_LENGTH, out=folder)
    else:
        trim, setting = parts.load("trim", name), Setting(home / "rows", max_length=_LENGTH)
        source = parent_of("full", home)
        folder.mkdir()
        trim.run(folder, source, trim.Config().model_dump(), setting)
    return folder


def fitted(trim: str, source: Path, folder: Path, config: int8_qat.Config, setting: Setting) -> Path:
    """int8_qat, or the same fit in plain floats."""
    folder.mkdir(parents=True)
    if trim == "int8_qat":
        int8_qat.run(folder, source, config.model_dump(), setting)
    else:
        module = task.load_model(source, attention="eager")
        teacher = task.load_model(source) if config.teacher and config.epochs else None
        if config.epochs:
            recover(module, source, setting, config.learning_rate, config.epochs, folder=folder, teacher=teacher,
                    share=config.teacher)
        write(module, source, folder)
    return folder


def answered(source: Path, rows: Path, engine_name: str, numerics: str, scratch: Path) -> np.ndarray:
    """Logits [N, C] of the test rows by an engine in this number format."""
    engine, split = parts.load("engine", engine_name), data.load(rows)
    (scratch / "trimmed").mkdir(parents=True)
    (scratch / "engine").mkdir()
    link_tree(source, scratch / "trimmed")
    fixed = {"precision": "fp32"} if "precision" in engine.Config.model_fields else {}
    engine.export(scratch / "engine", scratch / "trimmed", engine.Config(**fixed).model_dump(), numerics, split.train.texts[:300],
                  _LENGTH)
    tokenizer = task.load_tokenizer(scratch / "engine")
    return logits_of(engine.load(scratch / "engine", 1), lambda batch: task.encode(tokenizer, batch, _LENGTH), split.test.texts)


def told(parent: str, engine: str, trim: str, seed: str, wanted_NC: np.ndarray, logits_NC: np.ndarray,
         rows: Path) -> dict[str, Any]:
    """`agreement`: rows with the parent's answer; `kl`: mean KL(parent ‖ it), nats; `moved`: mean |Δlogit| by the spread."""
    labels_N = np.array(data.load(rows).test.labels)
    log_NC, found_NC = (each - np.logaddexp.reduce(each, -1, keepdims=True) for each in (wanted_NC, logits_NC))
    return {"parent": parent, "engine": engine, "trim": trim, "seed": seed,
            "accuracy": round(float((logits_NC.argmax(-1) == labels_N).mean()), 4),
            "agreement": round(float((logits_NC.argmax(-1) == wanted_NC.argmax(-1)).mean()), 4),
            "kl": round(float((np.exp(log_NC) * (log_NC - found_NC)).sum(-1).mean()), 5),
            "moved": round(float(np.abs(logits_NC - wanted_NC).mean() / wanted_NC.std()), 4)}


if __name__ == "__main__":
    main()
