"""int8_qat: it learns with the very numbers that the engine then runs, straight through the rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.engines.small_classifier import small_classifier
from tests.trim.idle import idle

from trimtune.engines import torch_eager
from trimtune.errors import TrimtuneError
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.trim import _grids, int8, int8_qat
from trimtune.tune.recovery import Setting

STRETCH = 30.0
"""a weight that makes its row's step 0.24, where its neighbors are smaller than that"""


def stretched(name: str, tensor: torch.Tensor) -> None:
    """Make the last of the states always 0, and what multiplies it STRETCH: nothing to a float32 layer, much to an int8 row."""
    if "LayerNorm" in name:
        tensor[-1] = 0
    elif name.endswith(("query.weight", "key.weight", "value.weight", "intermediate.dense.weight", "pooler.dense.weight")):
        tensor[:, -1] = STRETCH


@pytest.fixture(scope="module")
def untuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_classifier(tmp_path_factory.mktemp("untuned"), layers=2)


@pytest.fixture(scope="module")
def fragile(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tuned model that int8 damages."""
    return idle(small, tmp_path_factory.mktemp("fragile") / "model", stretched)


def logits(folder: Path, rows: Path, numerics: str, scratch: Path) -> torch.Tensor:
    """Of the test rows, 32 at a time, by PyTorch in this number format."""
    scratch.mkdir()
    torch_eager.export(scratch, folder, {"precision": "fp32"}, numerics, [], 32)
    run, tokenizer, texts = torch_eager.load(scratch, 1), task.load_tokenizer(folder), data.load(rows).test.texts
    return torch.cat([torch.from_numpy(run(task.encode(tokenizer, texts[at:at + 32], 32))) for at in range(0, len(texts), 32)])


def test_it_computes_with_the_numbers_of_the_engine(untuned: Path, tmp_path: Path) -> None:
    model: Any = task.load_model(untuned, attention="eager")
    inputs = task.encode(task.load_tokenizer(untuned), ["I was charged twice", "hi", "the app doesn't open any more"], 32)
    given = {name: torch.from_numpy(values) for name, values in inputs.items()}
    with torch.inference_mode():
        whole = model(**given).logits
        with int8_qat.rounding(model) as counts:
            learned = model(**given).logits
    torch_eager.export(tmp_path, untuned, {}, "int8", [], 32)
    runs = torch.from_numpy(torch_eager.load(tmp_path, 1)(inputs))
    assert counts == (2 * 6 + 1, 3)
    assert (learned - runs).abs().mean() < 0.1 * (whole - runs).abs().mean(), "beyond what a kernel's own rounding turns over"


def test_the_gradient_goes_straight_through(untuned: Path) -> None:
    """Of a layer's weights: what a plain one with both its sides rounded would get, the sum of out-gradient × rounded input."""
    model: Any = task.load_model(untuned, attention="eager").requires_grad_(True)
    layer, seen = model.bert.encoder.layer[1].intermediate.dense, {}

    def before(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen["before"] = inputs[0].detach()

    def after(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
        out.retain_grad()
        seen.update(after=inputs[0].detach(), out=out)

    layer.register_forward_pre_hook(before)
    layer.register_forward_hook(after)
    with int8_qat.rounding(model):
        model(torch.tensor([[5, 6, 7], [8, 9, 10]])).logits.square().sum().backward()
        found = layer.parametrizations.weight.original.grad
    assert torch.equal(seen["after"], _grids.seen8_together(seen["before"]))
    torch.testing.assert_close(found, torch.einsum("btn,btk->nk", seen["out"].grad, seen["after"]))
    assert model.bert.embeddings.word_embeddings.weight.grad[5:11].abs().amax(1).gt(0).all()


def test_what_it_leaves_is_the_model_as_it_was(untuned: Path) -> None:
    model: Any = task.load_model(untuned, attention="eager")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with int8_qat.rounding(model):
        assert model.state_dict().keys() != before.keys()
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in model.modules())


def test_without_epochs_it_is_int8(untuned: Path, helpdesk_rows: Path, tmp_path: Path) -> None:
    facts = int8_qat.run(tmp_path, untuned, {"epochs": 0}, Setting(helpdesk_rows))
    assert facts == {"matrices": 13, "embeddings": 3, "recovery": {}}
    assert int8_qat.NUMERICS == int8.NUMERICS
    wanted, found = (load_file(folder / "model.safetensors") for folder in (untuned, tmp_path))
    assert wanted.keys() == found.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_mends_what_int8_damages(precision: str, fragile: Path, rows: Path, tmp_path: Path) -> None:
    labels = torch.tensor(data.load(rows).test.labels)
    facts = int8_qat.run(tmp_path / "fitted", fragile, {"learning_rate": 3e-3}, Setting(rows, max_length=32, precision=precision))
    found = {name: logits(folder, rows, numerics, tmp_path / name)
             for name, folder, numerics in (("parent", fragile, "plain"), ("int8", fragile, "int8"),
                                            ("int8_qat", tmp_path / "fitted", "int8"))}
    right = {name: float((each.argmax(-1) == labels).float().mean()) for name, each in found.items()}
    assert right["int8"] < right["parent"] - 0.1, right
    assert right["int8_qat"] > right["int8"] + 0.1, right
    assert facts["recovery"]["epochs_run"] == 2


def test_a_model_without_linear_layers_in_blocks_is_refused(untuned: Path, helpdesk_rows: Path, tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    gpt2 = GPT2ForSequenceClassification(GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=4, num_labels=12))
    gpt2.save_pretrained(tmp_path / "gpt2")
    task.load_tokenizer(untuned).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(TrimtuneError, match="int8_qat: GPT2ForSequenceClassification has no plain linear layers"):
        int8_qat.run(tmp_path / "out", tmp_path / "gpt2", {}, Setting(helpdesk_rows))
