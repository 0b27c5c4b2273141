"""Two thin layers for one: the best ones for the inputs, in so many parameters as asked for, read and run like any model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.study import data
from trimtune.tasks import _shapes
from trimtune.tasks import text_classification as task
from trimtune.trim import _seen, _thin, low_rank
from trimtune.trim._model_folder import base_of
from trimtune.tune.recovery import Setting

TEXTS = ["I was charged twice this month", "can't sign in", "the export to our CRM fails since the last update, any idea?"]
SMALL = {"vocab_size": 30522, "hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 2}


def logits(module: Any, folder: Path, texts: list[str] = TEXTS) -> torch.Tensor:
    inputs = task.encode(task.load_tokenizer(folder), texts, 48)
    with torch.inference_mode():
        found: torch.Tensor = module(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
        return found


def inputs_and_weight() -> tuple[torch.Tensor, torch.Tensor]:
    """x [M, K] far from round and far from zero, and W [N, K]."""
    torch.manual_seed(0)
    mixed = torch.randn(32, 32, dtype=torch.float64) * torch.logspace(0, -2, 32, dtype=torch.float64)
    return torch.randn(4000, 32, dtype=torch.float64) @ mixed.T + 3 * torch.randn(32, dtype=torch.float64), torch.randn(24, 32)


def seen(x_MK: torch.Tensor) -> _seen.Seen:
    return _seen.Seen(len(x_MK), x_MK.T @ x_MK)


def error(layer: Any, other: Any, x_MK: torch.Tensor) -> float:
    """mean |y - y'|²"""
    return float((layer(x_MK.float()) - other(x_MK.float())).double().square().sum(1).mean())


def test_without_inputs_it_is_the_plain_truncated_svd() -> None:
    weight = inputs_and_weight()[1]
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    first, second = _thin.factors(weight, 8)
    assert (tuple(first.shape), tuple(second.shape)) == ((8, 32), (24, 8))
    torch.testing.assert_close(second @ first, left[:, :8] * values[:8] @ right[:8], atol=1e-4, rtol=1e-4)
    same = _thin.factors(weight, 8, torch.eye(32, dtype=torch.float64))
    torch.testing.assert_close(same[1] @ same[0], second @ first, atol=1e-5, rtol=1e-5)
    whole = _thin.factors(weight, 24, seen(inputs_and_weight()[0]).root_KK())
    torch.testing.assert_close(whole[1] @ whole[0], weight, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("has_bias", [True, False])
def test_the_factors_are_the_best_for_the_inputs(has_bias: bool) -> None:
    """The squared singular values left out foretell the error over the inputs; no other factors of this rank do better."""
    x_MK, weight = inputs_and_weight()
    layer = torch.nn.Linear(32, 24, bias=has_bias)
    layer.weight.data.copy_(weight)
    errors = {}
    for whiten in (True, False):
        model: Any = torch.nn.Module()
        model.layer, model.config = layer, type("Config", (), {})()
        found = {"layer": seen(x_MK)} if whiten else {}
        low_rank.thin(model, {"layer": 8}, found)
        errors[whiten] = error(layer, model.layer, x_MK)
        assert _shapes.marked(model.config)
    foretold = float(_thin.singular(weight, seen(x_MK).root_KK())[8:].square().sum())
    assert errors[True] == pytest.approx(foretold, rel=0.02)
    assert errors[True] < 0.2 * errors[False]


def test_energy_gives_the_lowest_rank_that_keeps_it_and_leaves_layers_whole_that_would_grow() -> None:
    values = [torch.cat([torch.ones(10), torch.zeros(54)]).double(), torch.ones(64).double()]
    assert _thin.ranks_by_energy(values, [(64, 64)] * 2, 0.8) == [8, None]
    assert _thin.ranks_by_energy(values, [(64, 64)] * 2, 0.81) == [16, None]
    assert _thin.ranks_by_energy(values, [(64, 64)] * 2, 0.3) == [8, 24]
    assert _thin.ranks_by_energy(values, [(64, 64), (64, 256)], 0.79) == [8, None]


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, 0.9])
def test_ratio_is_used_and_never_passed_in_any_layer(ratio: float) -> None:
    shapes = [(384, 384), (1536, 384), (384, 1536)]
    for (rows, columns), rank in zip(shapes, _thin.ranks_by_ratio(shapes, ratio), strict=True):
        assert rank
        assert rank * (rows + columns) <= ratio * rows * columns < (rank + 8) * (rows + columns)
    assert _thin.ranks_by_ratio([(12, 64), (64, 64)], 0.3) == [8, 8], "one step, where the share has room for none"
    assert _thin.ranks_by_ratio([(8, 8)], 0.3) == [None]


def test_moments_are_those_of_the_tokens_without_padding(helpdesk_rows: Path, small: Path) -> None:
    model: Any = task.load_model(small)
    layer = model.bert.encoder.layer[1].intermediate.dense
    taken = _seen.inputs_of(model, {"it": layer}, small, 8, Setting(helpdesk_rows, max_length=12, seed=2))["it"]
    x_MK: list[torch.Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: x_MK.append(inputs[0][0]))
    import random

    texts = data.load(helpdesk_rows).train.texts
    for row in random.Random(2).sample(range(len(texts)), 8):
        logits_of_row = task.encode(task.load_tokenizer(small), [texts[row]], 12)
        with torch.inference_mode():
            model(**{name: torch.from_numpy(values) for name, values in logits_of_row.items()})
    whole = torch.cat(x_MK).double()
    assert taken.count == len(whole)
    torch.testing.assert_close(taken.product_KK, whole.T @ whole, atol=1e-2, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prompt"])
def test_the_file_shrinks_and_whitening_costs_less_than_the_plain_svd(kind: str, tuned: Callable[[str], Path],
                                                                      helpdesk_rows: Path, tmp_path: Path) -> None:
    source, far = tuned(kind), {}
    wanted = logits(task.load_model(source), source)
    for whiten in (True, False):
        folder = tmp_path / str(whiten)
        facts = low_rank.run(folder, source, {"ratio": 0.6, "epochs": 0, "rows": 96, "whiten": whiten},
                             Setting(helpdesk_rows, max_length=32))
        found: Any = task.load_model(folder)
        assert isinstance(base_of(found).get_submodule(next(iter(facts["ranks"]))), torch.nn.Sequential)
        far[whiten] = (logits(found, folder) - wanted).abs().mean()
        assert (folder / "model.safetensors").stat().st_size < 4 * facts["parameters"] + 50_000
        assert (folder / task.ADAPTER).is_dir() == (kind == "prompt")
        linear = 6 * (4 * 384 * 384 + 2 * 384 * 1536) + 384 * 384
        assert facts["parameters_before"] - facts["parameters"] >= 0.4 * linear
    assert far[True] < 0.7 * far[False]


@pytest.mark.slow
def test_the_recovery_fit_wins_back_what_was_lost(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    train = data.load(helpdesk_rows).train
    losses = {}
    for epochs in (0, 1):
        folder = tmp_path / str(epochs)
        low_rank.run(folder, tuned("full"), {"ratio": 0.3, "epochs": epochs, "rows": 96}, Setting(helpdesk_rows, max_length=32))
        losses[epochs] = float(task.loss(logits(task.load_model(folder), folder, train.texts), torch.tensor(train.labels)))
    assert losses[1] < 0.9 * losses[0]
    assert np.isfinite(losses[1])


@pytest.fixture(scope="module")
def small(tuned: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT with MiniLM's tokenizer and 12 labels, its weights large enough that answers differ."""
    from transformers import BertConfig, BertForSequenceClassification

    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    BertForSequenceClassification(BertConfig(**SMALL, num_labels=12, initializer_range=0.2)).save_pretrained(folder)
    task.load_tokenizer(tuned("full")).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("numerics", ["plain", "int8"])
@pytest.mark.parametrize("engine", [name for name in parts.names("engine")
                                    if "text_classification" in parts.load("engine", name).TASKS
                                    and not getattr(parts.load("engine", name), "ONLY_IF_NAMED", False)])
def test_every_engine_runs_it_and_int8_after_it(engine: str, numerics: str, small: Path, helpdesk_rows: Path,
                                                tmp_path: Path) -> None:
    part = parts.load("engine", engine)
    if part.available():
        pytest.skip(part.available())
    low_rank.run(tmp_path / "thin", small, {"ratio": 0.6, "epochs": 0, "rows": 64}, Setting(helpdesk_rows, max_length=32))
    texts = data.load(helpdesk_rows).test.texts
    (tmp_path / "out").mkdir()
    part.export(tmp_path / "out", tmp_path / "thin", part.Config().model_dump(), numerics, texts[:16], 32)
    got = part.load(tmp_path / "out", 1)(task.encode(task.load_tokenizer(tmp_path / "out"), texts, 32))
    inputs = task.encode(task.load_tokenizer(small), texts, 32)
    with torch.inference_mode():
        model: Any = task.load_model(tmp_path / "thin")
        wanted = model(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits.numpy()
    assert np.abs(got - wanted).mean() < (0.3 if numerics == "int8" else 0.05) * wanted.std()


def test_other_architectures_shared_layers_and_layers_without_bias() -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification

    albert = AlbertForSequenceClassification(AlbertConfig(vocab_size=99, embedding_size=16, hidden_size=64, num_labels=3,
                                                          num_attention_heads=4, num_hidden_layers=3, intermediate_size=128))
    llama = LlamaForSequenceClassification(LlamaConfig(vocab_size=99, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
                                                       num_attention_heads=4, num_labels=3, pad_token_id=0))
    for model in (albert, llama):
        layers = low_rank.linear_layers(model)
        assert not [name for name in layers if "score" in name or "classifier" in name]
        ranks, kept = low_rank.chosen(layers, {}, 0.6, None)
        assert 0.3 < kept < 1
        low_rank.thin(model, ranks, {})
        assert model.eval()(input_ids=torch.randint(5, 99, (2, 7))).logits.shape == (2, 3)
        assert set(ranks) == set(layers)
        with pytest.raises(TrimtuneError, match="still whole"):  # what is thin already is left alone
            low_rank.linear_layers(model)


def test_what_has_no_linear_layers_or_would_not_shrink_is_refused() -> None:
    from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

    with pytest.raises(TrimtuneError, match="no plain linear layers"):
        low_rank.linear_layers(GPT2ForSequenceClassification(GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=4)))
    model = BertForSequenceClassification(BertConfig(**{**SMALL, "vocab_size": 99}))
    with pytest.raises(TrimtuneError, match=r"energy 0\.99 none of the 13 linear layers would become smaller"):
        low_rank.chosen(low_rank.linear_layers(model), {}, None, 0.99)


def test_energy_stands_instead_of_ratio() -> None:
    assert (low_rank.Config().ratio, low_rank.Config().energy) == (0.5, None)
    assert (low_rank.Config(energy=0.9).ratio, low_rank.Config(energy=0.9).energy) == (None, 0.9)
    with pytest.raises(ValidationError, match="ratio or energy, one of the two"):
        low_rank.Config(energy=0.9, ratio=0.5)
    with pytest.raises(ValidationError, match="ratio or energy, one of the two"):
        low_rank.Config(ratio=None)
