"""Pruning channels: the cut model is the whole one whose norms see the kept channels alone, and every engine runs it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.trim.test_prune_ffn import TEXTS, logits
from tests.trim.test_prune_heads import SMALL, answers, encoders

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.study import data
from trimtune.tasks import _shapes
from trimtune.tasks import text_classification as task
from trimtune.trim import _narrower, _stream, prune_ffn, prune_heads, prune_width
from trimtune.trim._drawn import of_equal_length
from trimtune.tune.recovery import Setting

KEPT, TAIL = torch.tensor([channel for channel in range(32) if channel % 4]), torch.arange(24)
LENGTH = 32


@pytest.mark.slow
def test_other_encoders_are_cut_and_read_back(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    for model in encoders():
        name, stream, whole = type(model).__name__, _stream.stream_of(model), answers(model)
        masked = copy.deepcopy(model)  # the reference: whole matrices, norms that see the kept channels
        for norm in stream.norms:
            masked.get_submodule(norm).register_forward_hook(normed_over_kept)
        for entry in stream.entries:
            silence(masked.get_submodule(entry), KEPT)
        for tail in stream.tail:
            silence(masked.get_submodule(tail), TAIL)
        _narrower.cut(model, stream, KEPT, TAIL)
        assert (model.config.hidden_size, model.config.num_attention_heads) == (24, 3), name
        assert model.get_submodule(stream.readers[0]).weight.shape == (32, 24), "four heads of eight channels are left"
        assert all(model.get_submodule(table).weight.shape[1] == 24 for table in stream.tables)
        torch.testing.assert_close(answers(model), answers(masked), atol=1e-5, rtol=1e-5)
        assert (answers(model) - whole).abs().max() > 0.01, name
        model.save_pretrained(tmp_path / name)
        assert _shapes.is_marked(tmp_path / name)
        found = _shapes.read(AutoModelForSequenceClassification, tmp_path / name, "sdpa", torch.float32)
        torch.testing.assert_close(answers(found), answers(model), atol=1e-5, rtol=1e-5)


def normed_over_kept(norm: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    few = inputs[0][..., KEPT]
    apart = few - few.mean(-1, keepdim=True)
    alike = apart / (apart.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    found = torch.zeros_like(output)
    found[..., KEPT] = alike * norm.weight[KEPT] + norm.bias[KEPT]
    return found


def silence(linear: torch.nn.Linear, kept: torch.Tensor) -> None:
    gone = torch.ones(linear.out_features, dtype=torch.bool).index_fill(0, kept, False)
    linear.weight.data[gone], linear.bias.data[gone] = 0, 0


@pytest.mark.slow
def test_heads_and_neurons_can_go_afterwards() -> None:
    model = encoders()[0]
    _narrower.cut(model, _stream.stream_of(model), KEPT, TAIL)
    blocks = prune_heads.attention_blocks(model)
    prune_heads.remove(model, blocks, [torch.tensor([0, 3])] * 2)
    assert model.get_submodule(blocks[0][1]).weight.shape == (24, 16)
    pairs = prune_ffn.feed_forward_blocks(model)
    prune_ffn.remove(model, pairs, [torch.arange(64.0)] * 2, 0.5)
    assert answers(model).isfinite().all()


@pytest.mark.slow
def test_other_architectures_are_refused() -> None:
    from transformers import (
        AlbertConfig,
        AlbertForSequenceClassification,
        DebertaV2Config,
        DebertaV2ForSequenceClassification,
        GPT2Config,
        GPT2ForSequenceClassification,
        MPNetConfig,
        MPNetForSequenceClassification,
    )

    with pytest.raises(TrimtuneError, match="prune_width: GPT2ForSequenceClassification has no blocks of plain linear layers"):
        _stream.stream_of(GPT2ForSequenceClassification(GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=4)))
    # the first two count heads by config.json when they are read, ALBERT's embeddings can't be told from a pooler
    for model in (DebertaV2ForSequenceClassification(DebertaV2Config(num_hidden_layers=2, **SMALL)),
                  MPNetForSequenceClassification(MPNetConfig(num_hidden_layers=2, **SMALL)),
                  AlbertForSequenceClassification(AlbertConfig(num_hidden_layers=2, embedding_size=32, **SMALL))):
        with pytest.raises(TrimtuneError, match=r"read back with 24|answers otherwise, or not at all, with fewer"):
            _narrower.cut(model.eval(), _stream.stream_of(model), KEPT, TAIL)


def test_what_stays_is_a_multiple_of_a_head() -> None:
    score = torch.tensor([3.0, 1, 9, 0, 7, 2, 8, 5])
    assert prune_width.chosen(score, 0.5, 2).tolist() == [2, 4, 6, 7]
    assert prune_width.chosen(score, 0.2, 4).tolist() == list(range(8)), "0.8 · 8 is nearer to 8 than to 4"
    assert prune_width.chosen(score, 0.99, 4).tolist() == [2, 4, 6, 7], "one head's at least"
    assert prune_width.chosen(score[:0], 0.5, 4).tolist() == []


@pytest.mark.slow
def test_the_importances_by_hand(small: Path, rows: Path) -> None:
    """activation: what the norms give; taylor: to first order what a row's loss would change by without the channel."""
    setting = Setting(rows, max_length=LENGTH, batch_size=4)
    module: Any = task.load_model(small, attention="eager").double()
    stream = _stream.stream_of(module)
    ids, labels = next(iter(of_equal_length(small, setting, 1)))
    seen: list[torch.Tensor] = []
    hooks = [module.get_submodule(name).register_forward_hook(lambda _, inputs, out: seen.append(out)) for name in stream.norms]
    with torch.no_grad():
        module(input_ids=ids)
    for hook in hooks:
        hook.remove()
    found, tail = _stream.importances(module, stream, "activation", small, 1, setting)
    torch.testing.assert_close(found, sum(state[0].abs().mean(0) for state in seen))
    assert (found.shape, tail.shape) == ((64,), (64,))

    found, tail = _stream.importances(module, stream, "taylor", small, 1, setting)
    assert not any(parameter.requires_grad for parameter in module.parameters())
    expected, step, channel = 0.0, 1e-4, int(found.argmax())
    for name in stream.norms:
        norm, losses = module.get_submodule(name), []
        for factor in (1 + step, 1 - step):
            kept = [one.data.clone() for one in (norm.weight, norm.bias)]
            norm.weight.data[channel] *= factor
            norm.bias.data[channel] *= factor
            with torch.no_grad():
                losses.append(float(torch.nn.functional.cross_entropy(module(input_ids=ids).logits, torch.tensor(labels))))
            norm.weight.data, norm.bias.data = kept
        expected += abs(losses[0] - losses[1]) / (2 * step)
    assert float(found[channel]) == pytest.approx(expected, rel=1e-3)

    found, _ = _stream.importances(module, stream, "weight", small, 1, setting)
    layers = [module.get_submodule(name).weight for name in (*stream.readers, *stream.tables)]
    layers += [module.get_submodule(name).weight.T for name in stream.writers]
    torch.testing.assert_close(found, sum(weight.square().sum(0) / weight.square().sum() for weight in layers))


@pytest.mark.slow
def test_a_norm_that_is_run_many_times_is_seen_each_time(small: Path, rows: Path) -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification, AutoConfig

    torch.manual_seed(0)
    sizes = {**SMALL, "num_labels": 16, "vocab_size": AutoConfig.from_pretrained(small).vocab_size}
    model = AlbertForSequenceClassification(AlbertConfig(num_hidden_layers=3, embedding_size=16, **sizes)).eval()
    setting, stream = Setting(rows, max_length=LENGTH, batch_size=4), _stream.stream_of(model)
    ids, _ = next(iter(of_equal_length(small, setting, 1)))
    squares: dict[str, torch.Tensor] = {}

    def see(name: str, output: torch.Tensor) -> None:
        squares[name] = squares.get(name, torch.zeros(32)) + output[0].abs().mean(0).square()

    hooks = [model.get_submodule(name).register_forward_hook(lambda _, inputs, out, name=name: see(name, out))
             for name in stream.norms]
    with torch.no_grad():
        model(input_ids=ids)
    for hook in hooks:
        hook.remove()
    found, _ = _stream.importances(model, stream, "activation", small, 1, setting)
    torch.testing.assert_close(found, sum(square.sqrt() for square in squares.values()))
    found, _ = _stream.importances(model, stream, "taylor", small, 1, setting)
    assert found.isfinite().all()


@pytest.fixture(scope="module")
def cut(small: Path, rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cut")
    facts = prune_width.run(folder, small, {"epochs": 0, "rows": 64}, Setting(rows, max_length=LENGTH))
    assert (facts["width_before"], facts["width"]) == (64, 32)
    assert 0.5 < facts["importance_kept"] < 1
    return folder


@pytest.mark.slow
def test_the_folder_shrinks_and_recovery_wins_back_what_was_lost(cut: Path, small: Path, rows: Path, tmp_path: Path) -> None:
    facts = prune_width.run(tmp_path, small, {"epochs": 2, "rows": 64, "learning_rate": 1e-3}, Setting(rows, max_length=LENGTH))
    sizes = {folder: (folder / "model.safetensors").stat().st_size for folder in (small, cut, tmp_path)}
    assert sizes[small] > 1.9 * sizes[cut] == pytest.approx(1.9 * sizes[tmp_path], rel=0.01)
    assert facts["parameters"] * 4 == pytest.approx(sizes[tmp_path], rel=0.01)
    split = data.load(rows).validation
    truth = torch.tensor(split.labels)

    def right(folder: Path) -> float:
        inputs = task.encode(task.load_tokenizer(folder), split.texts, LENGTH)
        with torch.inference_mode():
            found = task.load_model(folder)(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
        return float((found.argmax(-1) == truth).float().mean())

    assert right(tmp_path) > right(cut) + 0.05


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "numerics"), [("torch_eager", "plain"), ("torch_eager", "int8"), ("torch_eager", "int4"),
                                                  ("onnx_runtime", "plain"), ("onnx_runtime", "int8"), ("openvino_ir", "plain")])
def test_the_engines_run_it(engine: str, numerics: str, cut: Path, tmp_path: Path) -> None:
    part = parts.load("engine", engine)
    if part.available():
        pytest.skip(part.available())
    config = {"precision": "fp32"} if "precision" in part.Config.model_fields else {}
    facts = part.export(tmp_path, cut, config, numerics, TEXTS * 6, LENGTH)
    assert facts["packed"] == ("plain" if numerics == "plain" else "packed")
    wanted = logits(task.load_model(cut), cut)
    found = torch.from_numpy(part.load(tmp_path, 1)(task.encode(task.load_tokenizer(tmp_path), TEXTS, 48)))
    assert (found - wanted).abs().max() < {"plain": 1e-3, "int8": 0.5, "int4": 1.0}[numerics] * wanted.std()
