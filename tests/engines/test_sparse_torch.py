"""Weights without their zeros: smaller on disk, and bit for bit what they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trimtune.engines import _sparse_torch, onnx_runtime, torch_eager
from trimtune.engines._export import why_not
from trimtune.errors import TrimtuneError
from trimtune.records import Candidate, Use
from trimtune.tasks import text_classification as task
from trimtune.trim import prune_weights, sparse, sparse_int8
from trimtune.tune.recovery import Setting


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
@pytest.mark.parametrize("shape", [(1,), (7, 5), (3, 2, 9), (16, 16)])
def test_what_is_read_is_what_was_written(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    dense = (9 * torch.randn(shape)).to(dtype)
    dense[torch.rand(shape) < 0.6] = 0
    if dtype.is_floating_point:
        dense.view(-1)[:1] = -0.0
        dense.view(-1)[-1:] = float("nan")
    packed = _sparse_torch.pack(dense)
    found = _sparse_torch.unpack(packed[".bits"], packed[".values"], packed[".shape"])
    assert found.shape == dense.shape
    assert found.dtype == dtype
    integers = {4: torch.int32, 2: torch.int16, 1: torch.int8}[dense.element_size()]
    assert torch.equal(found.view(integers), dense.view(integers)), "-0.0 and NaN too"


def test_the_bits_are_those_that_the_page_says() -> None:
    packed = _sparse_torch.pack(torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, -1.0], [5.0, 0.0, 7.0]]))
    assert packed[".bits"].tolist() == [0b01000110, 0b10000000]
    assert packed[".values"].tolist() == [2.0, -1.0, 5.0, 7.0]
    assert packed[".shape"].tolist() == [3, 3]


@pytest.fixture(scope="module")
def thinned(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80% zeros, and a prefix beside them."""
    folder = tmp_path_factory.mktemp("thinned")
    prune_weights.run(folder, tuned("prefix"), {"epochs": 0, "steps": 1}, Setting(helpdesk_rows))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_answers_as_the_dense_folder_and_is_smaller(precision: str, thinned: Path, tmp_path: Path) -> None:
    for numerics in ("plain", "sparse"):
        facts = torch_eager.export(tmp_path / numerics, thinned, {"precision": precision}, numerics, [], 32)
    assert (facts["packed"], facts["precision"], facts["sparse_matrices"]) == ("stored", precision, 36)
    sizes = {name: (tmp_path / name / "model.safetensors").stat().st_size for name in ("plain", "sparse")}
    assert (sizes["plain"], sizes["sparse"]) == (facts["dense_bytes"], facts["bytes"])
    bits = {"fp32": 32, "bf16": 16}[precision]
    weights = sum(value.numel() for name, value in load_file(thinned / "model.safetensors").items()
                  if ".encoder.layer." in name and value.ndim == 2)
    assert sizes["plain"] - sizes["sparse"] == pytest.approx(weights * (bits - (1 + 0.2 * bits)) / 8, rel=0.01)
    inputs = task.encode(task.load_tokenizer(thinned), ["I was charged twice", "hi"], 32)
    dense, packed = (torch_eager.load(tmp_path / name, 1)(inputs) for name in ("plain", "sparse"))
    np.testing.assert_array_equal(packed, dense)
    one, other = (torch_eager.read(tmp_path / name, torch_eager._dtype(precision)).state_dict()
                  for name in ("plain", "sparse"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_int8_without_its_zeros_answers_as_int8(thinned: Path, tmp_path: Path) -> None:
    for numerics in ("int8", "sparse_int8"):
        (tmp_path / numerics).mkdir()
        facts = torch_eager.export(tmp_path / numerics, thinned, {}, numerics, [], 32)
    assert (facts["packed"], facts["precision"], facts["sparse_matrices"]) == ("packed", "int8", 36)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("int8", "sparse_int8")]
    assert sizes[1] < 0.72 * sizes[0]
    inputs = task.encode(task.load_tokenizer(thinned), ["I was charged twice", "hi"], 32)
    dense, packed = (torch_eager.load(tmp_path / name, 1)(inputs) for name in ("int8", "sparse_int8"))
    np.testing.assert_array_equal(packed, dense)


@pytest.mark.slow
def test_a_model_without_zeros_is_refused(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(TrimtuneError, match="no weight matrix has enough zeros"):
        torch_eager.export(tmp_path, tuned("full"), {"precision": "fp32"}, "sparse", [], 32)


@pytest.mark.parametrize("numerics", ["sparse", "sparse_int8"])
def test_engines_without_such_a_form_say_so(numerics: str) -> None:
    def asked(engine: str) -> str:
        trims = (Use(name="prune_weights"), Use(name=numerics))
        candidate = Candidate(method=Use(name="full"), trims=trims, engine=Use(name=engine))
        return why_not(candidate, "text_classification") or ""

    assert asked("torch_eager") == ""
    if not onnx_runtime.available():
        assert f"has no {numerics} for text_classification" in asked("onnx_runtime")


@pytest.mark.slow
@pytest.mark.parametrize("trim", [sparse, sparse_int8])
def test_the_trim_hands_the_bytes_on(trim: Any, thinned: Path, helpdesk_rows: Path, tmp_path: Path) -> None:
    trim.run(tmp_path, thinned, {}, Setting(helpdesk_rows))
    weights = Path("model.safetensors")
    assert (tmp_path / weights).stat().st_ino == (thinned / weights).stat().st_ino
