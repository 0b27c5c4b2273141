"""fp16 as a trim: half the bytes, answers that hardly move, and a refusal where half precision can't hold the weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trimtune import parts
from trimtune.engines import gguf_llamacpp, openvino_ir, torch_eager
from trimtune.errors import TrimtuneError
from trimtune.ship import lm_parity, parity
from trimtune.store import link_tree
from trimtune.tasks import text_classification as task

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("engine", "method", "file"), [("torch_eager", "lora", "model.safetensors"),
                                                        ("openvino_ir", "full", "model.bin")])
def test_half_the_bytes_are_stored_and_float32_runs(engine: str, method: str, file: str, tuned: Callable[[str], Path],
                                                    tmp_path: Path) -> None:
    part = parts.load("engine", engine)
    if part.available():
        pytest.skip(part.available())
    facts = part.export(tmp_path, tuned(method), {}, "fp16", [], 32)
    assert (facts["precision"], facts["packed"], facts["milliseconds"]) == ("fp32", "stored", {})
    plain = (tuned("full") / "model.safetensors").stat().st_size
    assert (tmp_path / file).stat().st_size == pytest.approx(plain / 2, rel=0.02)
    inputs = task.encode(task.load_tokenizer(tmp_path), ["I was charged twice", "hi"], 32)
    with torch.inference_mode():
        wanted = task.load_model(tuned(method))(**{name: torch.from_numpy(value) for name, value in inputs.items()}).logits
    difference = (torch.from_numpy(part.load(tmp_path, 1)(inputs)) - wanted).abs().max()
    assert 1e-6 < difference <= part.TOLERANCE["fp16"]
    assert parity.tolerance(engine, "fp16", "fp32") == (0.1, 0.99)


def test_weights_beyond_its_range_are_refused(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    link_tree(tuned("full"), tmp_path / "large")
    file = tmp_path / "large" / "model.safetensors"
    state = load_file(file)
    state["classifier.weight"][0, 0] = 7e4
    file.unlink()
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(TrimtuneError, match=r"(?s)largest weight is 7e\+04.*up to 65,504.*Use bf16"):
        torch_eager.export(tmp_path, tmp_path / "large", {}, "fp16", [], 32)


@pytest.mark.parametrize("engine", ["openvino_ir", "gguf_llamacpp"])
def test_a_language_model_stores_half(engine: str, lm_tuned: Callable[[str], Path], tmp_path: Path) -> None:
    part: Any = {"openvino_ir": openvino_ir, "gguf_llamacpp": gguf_llamacpp}[engine]
    if part.available():
        pytest.skip(part.available())
    source, sizes = lm_tuned("gpt2"), {}
    for numerics in ("plain", "fp16"):
        (tmp_path / numerics).mkdir()
        facts = part.export(tmp_path / numerics, source, {"precision": "fp32"}, numerics, [], 32, "causal_lm")
        sizes[numerics] = max(path.stat().st_size for path in (tmp_path / numerics).iterdir() if path.suffix in (".bin", ".gguf"))
    assert facts["precision"] == {"openvino_ir": "fp32", "gguf_llamacpp": "fp16"}[engine]
    assert sizes["fp16"] < 0.62 * sizes["plain"]
    assert lm_parity.allowed_of(engine, "fp16", facts["precision"]) == lm_parity.ROUNDED
