"""Every engine that lies in the folder runs what PyTorch runs: any tuned model, batch, length and padding, wherever it lies."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import LABELS
from tests.engines.small_classifier import small_classifier

from trimtune import parts
from trimtune.study import data
from trimtune.tasks import text_classification as task

ENGINES = [name for name in parts.names("engine") if "text_classification" in parts.load("engine", name).TASKS]
SMALL = ("small-lora", "small-prefix", "small-prompt")
"""adapters on a model of one layer, whose exports take little time; `full` is the whole MiniLM"""
RUNS = [(name, kind) for name in ENGINES
        for kind in (SMALL[1:2] if getattr(parts.load("engine", name), "ONLY_IF_NAMED", False) else ("full", *SMALL))]
"""engines that only a study names take long even so: one kind is enough"""
pytestmark = pytest.mark.slow
SHIPPABLE = {".safetensors", ".onnx", ".xml", ".bin", ".json", ".txt", ".model", ".jinja", ".plan", ".cache"}
FAR = {"int8": (0.3, 0.95), "int4": (0.6, 0.8)}
"""of the logits' spread what these may move a logit by on average, and the least correlation with what it was"""


@dataclass
class Runnable:
    folder: Path
    facts: dict[str, Any]
    run: Callable[[dict[str, np.ndarray]], np.ndarray]


@pytest.fixture(scope="module")
def tuned(tuned: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folders of all tests, and the small ones."""
    def make(kind: str) -> Path:
        return small_classifier(tmp_path_factory.mktemp(kind), kind.removeprefix("small-")) if kind in SMALL else tuned(kind)

    return cache(make)


@pytest.fixture(scope="module")
def runnable(tuned: Callable[[str], Path], helpdesk_rows: Path,
             tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Runnable]:
    """The export of (engine, kind, numerics), moved to another place before it is loaded."""
    texts = data.load(helpdesk_rows).train.texts

    @cache
    def make(engine: str, kind: str, numerics: str) -> Runnable:
        part = parts.load("engine", engine)
        if part.available():
            pytest.skip(part.available())
        made = tmp_path_factory.mktemp("made")
        facts = part.export(made, tuned(kind), part.Config().model_dump(), numerics, texts, 64)
        moved = Path(shutil.move(made, tmp_path_factory.mktemp("moved") / "elsewhere"))
        return Runnable(moved, facts, part.load(moved, 2))

    return make


@pytest.fixture(scope="module")
def expected(tuned: Callable[[str], Path]) -> Callable[[str, dict[str, np.ndarray]], np.ndarray]:
    """Logits of PyTorch in float32."""
    import torch

    models = cache(lambda kind: task.load_model(tuned(kind)))

    def logits(kind: str, inputs: dict[str, np.ndarray]) -> np.ndarray:
        with torch.inference_mode():
            found: np.ndarray = models(kind)(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits.numpy()
            return found

    return logits


def tolerance(engine: str, facts: dict[str, Any]) -> float:
    promised = parts.load("engine", engine).TOLERANCE
    return float(promised.get(facts["precision"], promised["plain"]))


def usual(engine: str, kind: str) -> str:
    """The kind that a test of one kind takes."""
    return kind if (engine, kind) in RUNS else SMALL[1]


def texts_of(folder: Path, rows: Path, count: int = 48) -> dict[str, np.ndarray]:
    return task.encode(task.load_tokenizer(folder), data.load(rows).test.texts[:count], 64)


@pytest.mark.parametrize(("engine", "kind"), RUNS)
def test_plain_answers_as_pytorch(engine: str, kind: str, runnable: Any, expected: Any, tuned: Any, helpdesk_rows: Path) -> None:
    ready = runnable(engine, kind, "plain")
    inputs = texts_of(tuned(kind), helpdesk_rows)
    got, wanted = ready.run(inputs), expected(kind, inputs)
    assert got.dtype == np.float32
    assert got.shape == (48, len(LABELS))
    assert np.abs(got - wanted).max() <= tolerance(engine, ready.facts)
    assert (got.argmax(1) == wanted.argmax(1)).mean() >= 0.95


@pytest.mark.parametrize("numerics", FAR)
@pytest.mark.parametrize("engine", ENGINES)
def test_fewer_bits_stay_near_and_really_shrink(engine: str, numerics: str, runnable: Any, expected: Any, tuned: Any,
                                                helpdesk_rows: Path) -> None:
    if numerics not in parts.load("engine", engine).NUMERICS["text_classification"]:
        pytest.skip(f"{engine} has no {numerics}")
    ready, (share, alike) = runnable(engine, "prefix", numerics), FAR[numerics]
    inputs = texts_of(tuned("prefix"), helpdesk_rows)
    got, wanted = ready.run(inputs), expected("prefix", inputs)
    assert np.abs(got - wanted).mean() <= share * wanted.std()
    assert np.corrcoef(got.ravel(), wanted.ravel())[0, 1] > alike
    assert ready.facts["packed"] == "packed"
    assert ready.facts["precision"] == numerics
    weights = sum(path.stat().st_size for path in ready.folder.rglob("*") if path.suffix in {".safetensors", ".onnx", ".bin"})
    assert weights < {"int8": 0.3, "int4": 0.24}[numerics] * (tuned("full") / "model.safetensors").stat().st_size


@pytest.mark.parametrize("engine", ENGINES)
def test_batch_and_length_are_free(engine: str, runnable: Any, expected: Any) -> None:
    kind, draw = usual(engine, "small-prefix"), np.random.default_rng(0)
    ready = runnable(engine, kind, "plain")
    for batch, tokens in ((1, 3), (64, 3), (2, 128), (7, 33), (1, 3)):
        inputs = {"input_ids": draw.integers(1000, 20000, (batch, tokens)), "attention_mask": np.ones((batch, tokens), np.int64)}
        got = ready.run(inputs)
        assert got.shape == (batch, len(LABELS))
        assert np.abs(got - expected(kind, inputs)).max() <= tolerance(engine, ready.facts), (batch, tokens)


@pytest.mark.parametrize(("engine", "kind"), RUNS)
def test_padding_changes_no_answer(engine: str, kind: str, runnable: Any) -> None:
    ready, draw = runnable(engine, kind, "plain"), np.random.default_rng(1)
    ids, ones = draw.integers(1000, 20000, (3, 9)), np.ones((3, 9), np.int64)
    alone = ready.run({"input_ids": ids, "attention_mask": ones})
    padded = ready.run({"input_ids": np.pad(ids, ((0, 0), (0, 40))), "attention_mask": np.pad(ones, ((0, 0), (0, 40)))})
    assert np.abs(alone - padded).max() <= tolerance(engine, ready.facts)
    unmasked = ready.run({"input_ids": np.pad(ids, ((0, 0), (0, 40))), "attention_mask": np.ones((3, 49), np.int64)})
    assert np.abs(alone - unmasked).max() > tolerance(engine, ready.facts), "the mask must be what keeps the padding out"


@pytest.mark.parametrize("engine", ENGINES)
def test_everything_that_ships_lies_in_the_folder(engine: str, runnable: Any, tuned: Any, helpdesk_rows: Path) -> None:
    ready, source = runnable(engine, usual(engine, "small-lora"), "plain"), tuned(usual(engine, "small-lora"))
    files = [path for path in ready.folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= SHIPPABLE
    for path in files:
        assert str(source).encode() not in path.read_bytes(), f"{path.name} points back to where it was made"
    for name, values in texts_of(source, helpdesk_rows).items():
        np.testing.assert_array_equal(texts_of(ready.folder, helpdesk_rows)[name], values)
    assert list(json.loads((ready.folder / "config.json").read_text())["id2label"].values()) == list(LABELS)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_facts_say_what_runs(engine: str, runnable: Any) -> None:
    facts = runnable(engine, usual(engine, "small-lora"), "plain").facts
    assert facts["packed"] == "plain"
    assert facts["precision"] in {"fp32", "bf16", "fp16"}
    assert json.loads(json.dumps(facts)) == facts
