"""binary and ternary: the grids by hand, the gradient that goes straight through, and the fit that makes them answer."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.tune.test_checkpoint import killed_after, told

from trimtune.errors import StepFailed, TrimtuneError
from trimtune.store import Store
from trimtune.tasks import text_classification as task
from trimtune.trim import _few_bits, binary, ternary
from trimtune.tune.recovery import Setting

PARTS = [binary, ternary]
VALUES = {binary: 2, ternary: 3}


def accuracy(folder: Path, rows: Any) -> float:
    inputs = task.encode(task.load_tokenizer(folder), rows.texts, 32)
    with torch.inference_mode():
        found: Any = task.load_model(folder)(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
    return (found.argmax(-1) == torch.tensor(rows.labels)).float().mean().item()


def test_two_values_by_hand() -> None:
    weight = torch.tensor([[1.0, -3.0, 0.0, 2.0], [0.5, 0.5, -0.5, -0.5]])
    torch.testing.assert_close(binary.quantize(weight, 0), torch.tensor([[1.5, -1.5, 1.5, 1.5], [0.5, 0.5, -0.5, -0.5]]))
    torch.testing.assert_close(binary.quantize(weight, 2), torch.tensor([[2.0, -2.0, 1.0, 1.0], [0.5, 0.5, -0.5, -0.5]]))
    assert torch.equal(binary.quantize(weight, 3), binary.quantize(weight, 0)), "3 does not divide 4: the whole row"


def test_three_values_by_hand() -> None:
    weight = torch.tensor([[1.0, -3.0, 0.0, 2.0]])  # threshold 0.7 · 1.5 = 1.05
    torch.testing.assert_close(ternary.quantize(weight, 0), torch.tensor([[0.0, -2.5, 0.0, 2.5]]))
    torch.testing.assert_close(ternary.quantize(weight, 2), torch.tensor([[0.0, -3.0, 0.0, 2.0]]))
    assert ternary.quantize(torch.zeros(2, 4), 0).eq(0).all()


@pytest.mark.parametrize("part", PARTS, ids=["binary", "ternary"])
def test_the_scale_is_the_best_one_for_its_signs(part: ModuleType) -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 256)
    grid = part.quantize(weight, 64)
    for factor in (0.97, 1.03):
        assert ((factor * grid - weight) ** 2).sum() > ((grid - weight) ** 2).sum()
    sizes = grid.unflatten(1, (-1, 64))
    assert all(len(group.unique()) == VALUES[part] for row in sizes for group in row)
    assert torch.equal(part.quantize(grid, 64), grid), "what lies on the grid stays where it is"
    assert torch.equal(grid.bfloat16().float(), grid), "bf16 holds it exactly"


@pytest.mark.parametrize("part", PARTS, ids=["binary", "ternary"])
def test_the_gradient_goes_straight_through(part: ModuleType) -> None:
    """dL/dW is what a plain layer with the quantized weights would get, counted by hand: the sum of out-gradient × input."""
    torch.manual_seed(0)
    layer, x, wanted = torch.nn.Linear(6, 3), torch.randn(5, 6), torch.randn(5, 3)
    latent, bias = layer.weight.detach().clone(), layer.bias.detach().clone()
    _few_bits.put_on_grid([layer], lambda weight: part.quantize(weight, 0))
    out = layer(x)
    torch.testing.assert_close(out, x @ part.quantize(latent, 0).T + bias)
    (out * wanted).sum().backward()
    learned = dict(layer.named_parameters())["parametrizations.weight.original"]
    torch.testing.assert_close(learned.grad, wanted.T @ x)
    torch.testing.assert_close(learned.detach(), latent)
    _few_bits.leave_on_grid([layer])
    assert type(layer) is torch.nn.Linear
    assert torch.equal(layer.weight, part.quantize(latent, 0))


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS, ids=["binary", "ternary"])
def test_the_fit_makes_it_answer(part: ModuleType, small: Path, rows: Path, tmp_path: Path) -> None:
    from trimtune.study import data

    test, setting, right = data.load(rows).test, Setting(rows, max_length=32, precision="fp32"), {}
    for epochs in (0, 4):
        config = {"group": 32, "epochs": epochs, "learning_rate": 3e-3}
        facts = part.run(tmp_path / str(epochs), small, config, setting)
        right[epochs] = accuracy(tmp_path / str(epochs), test)
    assert right[4] > 4 / 12, "chance is 1 in 12"
    assert right[4] > right[0] + 0.1
    assert (facts["matrices"], facts["weights"]) == (12, 2 * (4 * 64 * 64 + 2 * 64 * 160))
    assert (facts["zeros"] == 0) == (part is binary)
    assert facts["recovery"]["validation_score"] > 4 / 12
    fitted: Any = task.load_base(tmp_path / "4")
    blocks = _few_bits.matrices(fitted, "test")
    assert all(torch.equal(layer.weight, part.quantize(layer.weight, 32)) for layer in blocks.values())
    assert len(fitted.bert.pooler.dense.weight.abs().unique()) > 1000, "only the blocks are trimmed"


def killed(folder: Path, **arguments: Any) -> dict[str, Any]:
    return killed_after(4, binary.run, folder, **arguments)


@pytest.mark.slow
def test_killed_in_its_fit_it_ends_with_the_same_bytes(small: Path, helpdesk_rows: Path, tmp_path: Path) -> None:
    arguments = {"source": small, "config": {"epochs": 2}, "setting": Setting(helpdesk_rows, max_length=16, precision="fp32")}
    whole = Store(tmp_path / "whole").step("trim", "binary", binary.run, arguments)
    with pytest.raises(StepFailed, match="killed"):
        Store(tmp_path / "killed").step("trim", "binary", killed, arguments)
    events: list[dict[str, Any]] = []
    resumed = Store(tmp_path / "killed", events.append).step("trim", "binary", binary.run, arguments)
    assert [event["text"] for event in events if event["kind"] == "resumed"] == ["resumed at epoch 2, step 4 of 6"]
    assert resumed.files == whole.files
    assert told(resumed.facts["recovery"]) == told(whole.facts["recovery"])


@pytest.mark.slow
def test_a_fit_in_bf16_leaves_the_same_kind_of_weights(small: Path, helpdesk_rows: Path, tmp_path: Path) -> None:
    setting = Setting(helpdesk_rows, max_length=16, precision="bf16")
    for name, epochs in (("before", 0), ("after", 1)):
        binary.run(tmp_path / name, small, {"epochs": epochs, "learning_rate": 3e-3}, setting)
    before, after = (_few_bits.matrices(task.load_base(tmp_path / name), "test") for name in ("before", "after"))
    assert all(torch.equal(layer.weight, binary.quantize(layer.weight, 128)) for layer in after.values())
    assert any((after[name].weight.sign() != before[name].weight.sign()).any() for name in after), "signs are what is learned"


def test_a_model_without_linear_layers_in_blocks_is_refused() -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    gpt2 = GPT2ForSequenceClassification(GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=4))
    with pytest.raises(TrimtuneError, match="binary: GPT2ForSequenceClassification has no plain linear layers"):
        _few_bits.matrices(gpt2, "binary")


def test_other_encoders_have_their_blocks_found() -> None:
    from transformers import (
        AlbertConfig,
        AlbertForSequenceClassification,
        DistilBertConfig,
        DistilBertForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    small = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 3}
    distil = DistilBertConfig(vocab_size=99, dim=32, n_heads=4, hidden_dim=64, n_layers=2)
    for model, count in ((RobertaForSequenceClassification(RobertaConfig(num_hidden_layers=2, **small)), 12),
                         (DistilBertForSequenceClassification(distil), 12),
                         (AlbertForSequenceClassification(AlbertConfig(num_hidden_layers=3, embedding_size=16, **small)), 6)):
        found = _few_bits.matrices(model, "binary")
        assert len(found) == count, type(model).__name__
        assert all(model.get_submodule(name) is layer for name, layer in found.items())
        assert not any("classifier" in name or "pooler" in name for name in found)
