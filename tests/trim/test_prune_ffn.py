"""Pruning feed-forward neurons: the right ones go, the matrices shrink, any loader reads the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.trim.idle import idle

from trimtune.errors import TrimtuneError
from trimtune.tasks import text_classification as task
from trimtune.trim import _importance, prune_ffn
from trimtune.trim._drawn import drawn
from trimtune.trim._model_folder import base_of
from trimtune.tune.recovery import Setting

TEXTS = ["I was charged twice this month", "can't sign in", "the export to our CRM fails since the last update, any idea?"]


def logits(module: Any, folder: Path) -> torch.Tensor:
    inputs = task.encode(task.load_tokenizer(folder), TEXTS, 48)
    with torch.inference_mode():
        found: torch.Tensor = module(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
        return found


@pytest.fixture
def with_idle_neurons(tuned: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A tuned model whose every odd feed-forward neuron has no effect: its outgoing weights are zero."""
    def zero(name: str, tensor: torch.Tensor) -> None:
        if name.endswith("output.dense.weight") and tensor.shape == (384, 1536):
            tensor[:, 1::2] = 0

    return lambda kind: idle(tuned(kind), tmp_path / f"idle-{kind}", zero)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "prefix", "prompt"])
def test_idle_neurons_go_first_so_nothing_changes(kind: str, with_idle_neurons: Callable[[str], Path], helpdesk_rows: Path,
                                                  tmp_path: Path) -> None:
    source, folder = with_idle_neurons(kind), tmp_path / "pruned"
    facts = prune_ffn.run(folder, source, {"ratio": 0.5, "epochs": 0, "rows": 16}, Setting(helpdesk_rows, max_length=32))
    assert (facts["width_before"], facts["width"], facts["blocks"]) == (1536, 768, 6)
    assert facts["importance_kept"] == 1
    assert facts["parameters_before"] - facts["parameters"] == 6 * 768 * (2 * 384 + 1)
    pruned = task.load_model(folder)
    assert base_of(pruned).config.intermediate_size == 768
    torch.testing.assert_close(logits(pruned, folder), logits(task.load_model(source), source), atol=1e-4, rtol=1e-4)
    assert (folder / task.ADAPTER).is_dir() == (kind != "full")


@pytest.mark.slow
def test_what_is_left_can_be_cut_again(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    """A quarter of 1,536 neurons would be as wide as the states, 384: no later trim could tell the layers by their shapes."""
    setting = Setting(helpdesk_rows, max_length=32)
    facts = prune_ffn.run(tmp_path, tuned("full"), {"ratio": 0.75, "epochs": 0, "rows": 16}, setting)
    assert facts["width"] == 400
    assert len(prune_ffn.feed_forward_blocks(task.load_model(tmp_path))) == 6


@pytest.mark.slow
def test_lora_is_merged_first(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    source = tuned("lora")
    prune_ffn.run(tmp_path, source, {"ratio": 0.01, "epochs": 0, "rows": 16}, Setting(helpdesk_rows, max_length=32))
    assert not (tmp_path / task.ADAPTER).exists()
    merged = logits(task.load_model(source), source)
    assert (logits(task.load_model(tmp_path), tmp_path) - merged).abs().max() < 0.1 * merged.std()


@pytest.mark.slow
def test_the_importance_is_activation_times_gradient(tuned: Callable[[str], Path], helpdesk_rows: Path) -> None:
    """To first order it foretells what a row's loss would change by if the neuron's activation were zero."""
    from trimtune.study import data

    module: Any = task.load_model(tuned("full"), attention="eager").double()
    blocks = prune_ffn.feed_forward_blocks(module)
    scores = _importance.importances(module, [down for _, down in blocks], tuned("full"), 1,
                                     Setting(helpdesk_rows, max_length=32, batch_size=1, seed=3))
    split = drawn(helpdesk_rows, 1, 3)
    texts, labels = split.texts, split.labels
    assert texts[0] in data.load(helpdesk_rows).train.texts
    encoded = task.encode(task.load_tokenizer(tuned("full")), texts, 32)
    inputs = {name: torch.from_numpy(values) for name, values in encoded.items()}
    down = module.get_submodule(blocks[2][1])
    step = 1e-3
    for neuron in (scores[2].argmax().item(), 100):
        column = down.weight[:, neuron].clone()
        losses = []
        with torch.no_grad():
            for factor in (1 + step, 1 - step):  # scaling the outgoing weights scales the activation's effect
                down.weight[:, neuron] = column * factor
                losses.append(torch.nn.functional.cross_entropy(module(**inputs).logits, torch.tensor(labels)))
            down.weight[:, neuron] = column
        assert ((losses[0] - losses[1]) / (2 * step)).abs().item() == pytest.approx(scores[2][neuron].item(), rel=1e-2, abs=1e-6)


@pytest.mark.slow
def test_other_criteria_are_how_strong_a_neuron_is_and_how_strongly_it_is_read(
        tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    source, setting = tuned("full"), Setting(helpdesk_rows, max_length=32, seed=3)
    module: Any = task.load_model(source, attention="eager")
    down, read = module.get_submodule(prune_ffn.feed_forward_blocks(module)[4][1]), []
    down.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0].abs().mean(0)))
    for text in drawn(helpdesk_rows, 5, 3).texts:
        with torch.no_grad():
            module(**{name: torch.from_numpy(values) for name, values in
                      task.encode(task.load_tokenizer(source), [text], 32).items()})
    strongest = {"activation": torch.stack(read).norm(dim=0), "weight": down.weight.norm(dim=0)}
    for criterion, wanted in strongest.items():
        prune_ffn.run(tmp_path / criterion, source, {"criterion": criterion, "ratio": 0.5, "epochs": 0, "rows": 5}, setting)
        left: Any = task.load_model(tmp_path / criterion)
        kept = wanted.topk(768).indices.sort().values
        torch.testing.assert_close(left.get_submodule(prune_ffn.feed_forward_blocks(left)[4][1]).weight, down.weight[:, kept])


@pytest.mark.slow
def test_the_recovery_fit_wins_back_what_pruning_lost(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    import numpy as np

    from trimtune.study import data

    train = data.load(helpdesk_rows).train
    inputs = task.encode(task.load_tokenizer(tuned("full")), train.texts, 32)

    def loss(folder: Path) -> float:
        with torch.inference_mode():
            found: Any = task.load_model(folder)(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
        return float(task.loss(found, torch.tensor(train.labels)))

    for epochs in (0, 3):
        config = {"ratio": 0.5, "epochs": epochs}
        prune_ffn.run(tmp_path / str(epochs), tuned("full"), config, Setting(helpdesk_rows, max_length=32))
    assert loss(tmp_path / "3") < 0.8 * loss(tmp_path / "0")
    assert np.isfinite(loss(tmp_path / "3"))


def test_it_finds_the_blocks_of_other_encoders() -> None:
    from transformers import (
        AlbertConfig,
        AlbertForSequenceClassification,
        DistilBertConfig,
        DistilBertForSequenceClassification,
        ElectraConfig,
        ElectraForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    small = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 3}
    models = {2: [RobertaForSequenceClassification(RobertaConfig(num_hidden_layers=2, **small)),
                  ElectraForSequenceClassification(ElectraConfig(num_hidden_layers=2, embedding_size=16, **small)),
                  DistilBertForSequenceClassification(DistilBertConfig(vocab_size=99, dim=32, n_heads=4, hidden_dim=64,
                                                                       n_layers=2))],
              1: [AlbertForSequenceClassification(AlbertConfig(num_hidden_layers=3, embedding_size=16, **small))]}
    for count, found in models.items():
        for model in found:
            blocks = prune_ffn.feed_forward_blocks(model)
            assert len(blocks) == count, type(model).__name__
            prune_ffn.remove(model, blocks, [torch.arange(64.0)] * count, 0.5)
            ids = torch.randint(5, 99, (2, 7))
            assert model(input_ids=ids).logits.shape[0] == 2
            assert type(model)(model.config).get_submodule(blocks[0][0][0]).out_features == 48


def test_gate_and_what_it_gates_in_one_matrix_are_refused() -> None:
    from transformers import ModernBertConfig, ModernBertForSequenceClassification

    model = ModernBertForSequenceClassification(ModernBertConfig(
        vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, cls_token_id=1, sep_token_id=2))
    with pytest.raises(TrimtuneError, match="no feed-forward blocks of two plain linear layers"):
        prune_ffn.feed_forward_blocks(model)


def test_a_gate_goes_with_what_it_gates_though_queries_are_as_wide() -> None:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    llama = LlamaForSequenceClassification(LlamaConfig(vocab_size=99, hidden_size=32, intermediate_size=64, head_dim=16,
                                                       num_hidden_layers=2, num_attention_heads=4))
    assert prune_ffn.feed_forward_blocks(llama)[1] == (
        ("model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"), "model.layers.1.mlp.down_proj")
