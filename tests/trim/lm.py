"""Language models that trims are tried on, and rows for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tasks.small_lm import make, texts

from trimtune.tasks import causal_lm as task
from trimtune.tasks._inputs import READING, reading_in
from trimtune.tune.recovery import Setting, recover
from trimtune.tune.scoring import score_model

READ = {"kind": "text", "template": "", "learned": "answers"}
PROMPTS = ("I was charged", "hello, the export to our CRM", "can")


def texts_folder(folder: Path, train: int = 96, others: int = 32) -> Path:
    """A folder of the data step: help desk lines as plain texts."""
    from trimtune.records import DataSpec
    from trimtune.study import language

    folder.mkdir(parents=True, exist_ok=True)
    for name, count in (("train", train), ("validation", others), ("test", others)):
        lines = (json.dumps({"text": text}) for text in texts(name)[:count])
        (folder / f"{name}-given.jsonl").write_text("\n".join(lines), encoding="utf-8")
    given = {name: str(folder / f"{name}-given.jsonl") for name in ("train", "validation", "test")}
    language.save(language.read(DataSpec(**given), seed=0), folder / "rows")
    return folder / "rows"


def tuned(kind: str, rows: Path, shared: Path | None, folder: Path) -> Path:
    """A tuned folder: a GPT-2 of the tests, or stories260K where it lies, after a few steps on the rows."""
    if kind == "llama":
        if shared is None or not (shared / "models" / "stories260K").is_dir():
            pytest.skip(f"needs the model stories260K beside the checkout, in {shared}")
        shutil.copytree(shared / "models" / "stories260K", folder)
    else:
        make(folder, kind)
    (folder / READING).write_text(json.dumps(READ), encoding="utf-8")
    model = task.load_base(folder)
    recover(model, folder, setting(rows), 3e-3 if kind == "gpt2" else 1e-3, 4)
    model.save_pretrained(folder)
    return folder


def setting(rows: Path, **given: Any) -> Setting:
    return Setting(rows, **{"task": "causal_lm", "max_length": 48, "batch_size": 16, "precision": "fp32", **given})


def logits(folder: Path, prompt: str = PROMPTS[1]) -> torch.Tensor:
    ids = task.load_tokenizer(folder)(prompt, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        found: torch.Tensor = task.load_model(folder)(input_ids=ids).logits
    return found


def perplexity(folder: Path, rows: Path) -> float:
    return task.metric(score_model(folder, folder, rows, "validation", 48, "causal_lm", reading_in(folder))["score"])


def decodes_on_its_cache(folder: Path, engine: Path) -> None:
    """Exported to PyTorch and loaded again, the model answers on its cache as without, and as the folder does."""
    from trimtune.engines import torch_eager
    from trimtune.engines._decoding import generate
    from trimtune.engines._torch_decoder import TorchDecoder

    facts = torch_eager.export(engine, folder, {"precision": "fp32"}, "plain", [], 32, "causal_lm")
    assert facts["difference"] < 1e-3
    decoder: Any = torch_eager.load(engine, 1)
    prompts = task.load_tokenizer(folder)(list(PROMPTS))["input_ids"]
    answers = generate(decoder, prompts, (), 12)
    assert answers == generate(decoder, prompts, (), 12, cached=False)
    assert answers == generate(TorchDecoder(task.load_model(folder)), prompts, (), 12)
