"""Folders whose layers have other shapes than their config says: what was cut is read back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

from trimtune.engines import _int8_torch
from trimtune.errors import StepFailed
from trimtune.tasks import _shapes

IDS = torch.tensor([[5, 9, 11, 3], [7, 8, 0, 0]])
MASK = (IDS > 0).long()


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=IDS, attention_mask=MASK).logits
        return found


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(vocab_size=99, hidden_size=32, num_attention_heads=4, num_hidden_layers=2,
                                                    intermediate_size=64, num_labels=3, initializer_range=0.5))


def without_half_its_heads(model: Any) -> Any:
    """The last two of four heads of each layer, gone."""
    for layer in model.bert.encoder.layer:
        attention = layer.attention
        for linear in (attention.self.query, attention.self.key, attention.self.value):
            linear.weight, linear.bias = torch.nn.Parameter(linear.weight[:16]), torch.nn.Parameter(linear.bias[:16])
            linear.out_features = 16
        out = attention.output.dense
        out.weight, out.in_features = torch.nn.Parameter(out.weight[:, :16].contiguous()), 16
    _shapes.mark(model.config)
    return model


def in_two_factors(model: Any) -> Any:
    for name in ("bert.encoder.layer.1.output.dense", "bert.encoder.layer.0.attention.self.query"):
        linear = model.get_submodule(name)
        left, values, right = torch.linalg.svd(linear.weight, full_matrices=False)
        thin, wide = torch.nn.Linear(linear.in_features, 5, bias=False), torch.nn.Linear(5, linear.out_features)
        thin.weight = torch.nn.Parameter((values[:5, None] * right[:5]).contiguous())
        wide.weight, wide.bias = torch.nn.Parameter(left[:, :5].contiguous()), linear.bias
        model.set_submodule(name, torch.nn.Sequential(thin, wide))
    _shapes.mark(model.config)
    return model


def with_a_narrow_embedding(model: Any) -> Any:
    table = model.bert.embeddings.word_embeddings
    pair = _shapes.factorised(table, 7, 32)
    left, values, right = torch.linalg.svd(table.weight, full_matrices=False)
    pair.narrow.weight = torch.nn.Parameter((left[:, :7] * values[:7]).contiguous())
    pair.wide.weight = torch.nn.Parameter(right[:7].T.contiguous())
    assert pair.narrow.padding_idx == table.padding_idx == 0
    model.bert.embeddings.word_embeddings = pair
    _shapes.mark(model.config)
    return model


CUTS = [without_half_its_heads, in_two_factors, with_a_narrow_embedding]


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_what_was_cut_is_read_back(cut: Any, attention: str, model: Any, tmp_path: Path) -> None:
    before, wanted = logits(model), logits(cut(model))
    assert (before - wanted).abs().max() > 0.01
    model.save_pretrained(tmp_path)
    found = _shapes.read(AutoModelForSequenceClassification, tmp_path, attention, torch.float32)
    torch.testing.assert_close(logits(found), wanted, atol=1e-5, rtol=1e-5)
    half = _shapes.read(AutoModelForSequenceClassification, tmp_path, attention, torch.bfloat16)
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("cut", CUTS)
def test_int8_is_written_and_read_in_the_new_shapes(cut: Any, model: Any, tmp_path: Path) -> None:
    wanted = logits(cut(model))
    (tmp_path / "source").mkdir()
    (tmp_path / "out").mkdir()
    from transformers import BertTokenizer

    BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "[MASK]": 4}).save_pretrained(tmp_path / "source")
    _int8_torch.write(model, tmp_path / "source", tmp_path / "out")
    assert (logits(_int8_torch.read(tmp_path / "out")) - wanted).abs().max() < 0.5 * wanted.std()


def test_an_unmarked_folder_is_transformers_own(model: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    found = _shapes.read(AutoModelForSequenceClassification, tmp_path, "sdpa", torch.float32)
    torch.testing.assert_close(logits(found), logits(model))


def test_a_folder_that_lacks_tensors_is_refused(model: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    without_half_its_heads(model).save_pretrained(tmp_path)
    state = load_file(tmp_path / _shapes.WEIGHTS)
    del state["bert.encoder.layer.1.output.dense.weight"]
    save_file(state, tmp_path / _shapes.WEIGHTS)
    with pytest.raises(StepFailed, match=r"lacks bert\.encoder\.layer\.1\.output\.dense\.weight"):
        _shapes.read(AutoModelForSequenceClassification, tmp_path, "sdpa", torch.float32)
