"""PyTorch as an engine: what is stored, what runs, and the int8 kernel against its plain reference."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from trimtune.engines import _int8_torch, _stored_classifier, torch_eager
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.tasks import text_classification as task
from trimtune.trim import _grids


def test_quantized_weights_are_off_by_half_a_step_at_most() -> None:
    torch.manual_seed(0)
    weight = torch.randn(48, 96) * torch.logspace(-3, 1, 48)[:, None]
    weight[7] = 0
    packed, scale = _grids.quantize8(weight)
    assert packed.dtype == torch.int8
    assert (packed * scale[:, None] - weight).abs().amax(1).le(scale / 2 * 1.001).all()
    assert packed[7].eq(0).all()


@pytest.mark.parametrize("shape", [(1, 3, 64), (5, 64), (4, 9, 64)])
def test_the_int8_kernel_computes_what_the_reference_computes(shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    weight, bias, x = torch.randn(40, 64), torch.randn(40), torch.randn(shape) * 3 + 1
    packed, scale = _grids.quantize8(weight)
    got = _int8_torch.linear(packed, scale, bias)(x)
    torch.testing.assert_close(got, _int8_torch.linear_reference(x, packed, scale, bias), rtol=1e-3, atol=2e-2)
    exact = torch.nn.functional.linear(x, weight, bias)
    assert 0 < (got - exact).norm() / exact.norm() < 0.03


@pytest.mark.slow
def test_the_asked_precision_is_stored_and_runs(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        folder = tmp_path / precision
        facts = torch_eager.export(folder, tuned("lora"), {"precision": precision}, "plain", [], 32)
        assert facts["precision"] == precision
        assert facts["milliseconds"] == {}, "nothing is timed where the study decides"
        state = load_file(folder / "model.safetensors")
        assert {tensor.dtype for tensor in state.values()} == {dtype}
        assert not any("lora" in name for name in state), "LoRA is merged"


@pytest.mark.slow
def test_int8_lies_packed_and_is_never_blown_up(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    facts = torch_eager.export(tmp_path, tuned("prompt"), {}, "int8", [], 32)
    state = load_file(tmp_path / "model.safetensors")
    assert sum(tensor.dtype == torch.int8 for tensor in state.values()) == facts["matrices"] == 6 * 6 + 1 + 3
    module = _int8_torch.read(tmp_path)
    floats = sum(parameter.nbytes for parameter in module.parameters() if parameter.is_floating_point())
    assert floats < 1_000_000


@pytest.mark.slow
def test_a_folder_that_lacks_weights_is_refused(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch_eager.export(tmp_path, tuned("full"), {}, "int8", [], 32)
    state = load_file(tmp_path / "model.safetensors")
    del state["classifier.weight"]
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(StepFailed, match="classifier.weight"):
        torch_eager.load(tmp_path, 2)


def test_int8_refuses_a_model_without_linear_layers(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    model = GPT2ForSequenceClassification(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=50, num_labels=3))
    with pytest.raises(TrimtuneError, match="no plain linear layers"):
        _int8_torch.write(model, tmp_path, tmp_path / "out")


def test_a_half_of_the_memory_stays_a_half(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    torch_eager.export(tmp_path, tuned("prefix"), {"precision": "bf16"}, "plain", [], 32)
    module = _stored_classifier.read(tmp_path, torch.bfloat16)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert (tmp_path / task.ADAPTER / "adapter_model.safetensors").is_file()
