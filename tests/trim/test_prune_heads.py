"""Pruning attention heads: the right ones go, the matrices shrink, and every engine runs what is left."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import LABELS
from tests.trim.idle import idle
from tests.trim.test_prune_ffn import TEXTS, logits

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.tasks import _shapes
from trimtune.tasks import text_classification as task
from trimtune.trim import _importance, prune_ffn, prune_heads
from trimtune.trim._drawn import drawn
from trimtune.tune.recovery import Setting

SMALL = {"vocab_size": 99, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_labels": 3,
         "initializer_range": 0.5}
IDS = torch.tensor([[5, 9, 11, 3, 8], [7, 8, 2, 0, 0]])


def answers(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(input_ids=IDS, attention_mask=(IDS > 0).long()).logits
        return found


@pytest.fixture
def with_idle_heads(tuned: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A tuned MiniLM whose every odd head has no effect: its columns of the output projections are zero."""
    def zero(name: str, tensor: torch.Tensor) -> None:
        if name.endswith("attention.output.dense.weight"):
            tensor.unflatten(1, (12, 32))[:, 1::2] = 0

    return lambda kind: idle(tuned(kind), tmp_path / f"idle-{kind}", zero)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "scope"), [("full", "layer"), ("full", "model"), ("prefix", "layer"), ("prompt", "model")])
def test_idle_heads_go_first_so_nothing_changes(kind: str, scope: str, with_idle_heads: Callable[[str], Path],
                                                helpdesk_rows: Path, tmp_path: Path) -> None:
    source, folder = with_idle_heads(kind), tmp_path / "pruned"
    config = {"ratio": 0.5, "scope": scope, "epochs": 0, "rows": 16}
    facts = prune_heads.run(folder, source, config, Setting(helpdesk_rows, max_length=32))
    assert (facts["heads_before"], facts["heads"], facts["head_size"]) == ([12] * 6, [6] * 6, 32)
    assert facts["importance_kept"] == 1
    virtual = 20 * 6 * 2 * 6 * 32 if kind == "prefix" else 0
    assert facts["parameters_before"] - facts["parameters"] == 6 * (4 * 384 * 192 + 3 * 192) + virtual
    shrunk = sum((path / "model.safetensors").stat().st_size * sign for path, sign in ((source, 1), (folder, -1)))
    assert shrunk == pytest.approx(6 * (4 * 384 * 192 + 3 * 192) * 4, rel=0.01), "bytes of float32"
    pruned = task.load_model(folder)
    torch.testing.assert_close(logits(pruned, folder), logits(task.load_model(source), source), atol=1e-4, rtol=1e-4)
    assert (folder / task.ADAPTER).is_dir() == (kind != "full")


@pytest.mark.slow
def test_other_criteria_take_a_heads_channels_together(tuned: Callable[[str], Path], helpdesk_rows: Path) -> None:
    source, setting = tuned("full"), Setting(helpdesk_rows, max_length=32, seed=3)
    module: Any = task.load_model(source, attention="eager")
    out = prune_heads.attention_blocks(module)[2][1]
    layer, read = module.get_submodule(out), []
    (weight,) = _importance.importances(module, [out], source, 5, setting, channels=32, criterion="weight")
    torch.testing.assert_close(weight, torch.stack([columns.norm() for columns in layer.weight.split(32, dim=1)]))
    (found,) = _importance.importances(module, [out], source, 5, setting, channels=32, criterion="activation")
    layer.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0][0].abs().mean(0)))
    for text in drawn(helpdesk_rows, 5, 3).texts:
        with torch.no_grad():
            module(**{name: torch.from_numpy(values) for name, values in
                      task.encode(task.load_tokenizer(source), [text], 32).items()})
    torch.testing.assert_close(found, torch.stack([rows.norm() for rows in torch.stack(read).split(32, dim=1)]))


@pytest.mark.slow
def test_the_importance_is_the_heads_output_times_its_gradient(tuned: Callable[[str], Path], helpdesk_rows: Path) -> None:
    """To first order it foretells what a row's loss would change by if the head gave zeros."""
    module: Any = task.load_model(tuned("full"), attention="eager").double()
    setting = Setting(helpdesk_rows, max_length=32, batch_size=1, seed=3)
    out = prune_heads.attention_blocks(module)[2][1]
    (score,) = _importance.importances(module, [out], tuned("full"), 1, setting, channels=32)
    assert score.shape == (12,)
    split = drawn(helpdesk_rows, 1, 3)
    texts, labels = split.texts, split.labels
    encoded = task.encode(task.load_tokenizer(tuned("full")), texts, 32)
    inputs = {name: torch.from_numpy(values) for name, values in encoded.items()}
    weight, step = module.get_submodule(out).weight, 1e-3
    for head in (int(score.argmax()), 7):
        columns = weight[:, head * 32:head * 32 + 32].clone()
        losses = []
        with torch.no_grad():
            for factor in (1 + step, 1 - step):
                weight[:, head * 32:head * 32 + 32] = columns * factor
                losses.append(torch.nn.functional.cross_entropy(module(**inputs).logits, torch.tensor(labels)))
            weight[:, head * 32:head * 32 + 32] = columns
        assert ((losses[0] - losses[1]) / (2 * step)).abs().item() == pytest.approx(score[head].item(), rel=1e-2, abs=1e-6)


def test_which_heads_stay() -> None:
    scores = [torch.tensor([1.0, 4.0, 2.0, 3.0]), torch.tensor([500.0, 10.0, 20.0, 30.0]),
              torch.tensor([0.012, 0.01, 0.011, 0.013])]

    def kept(ratio: float, scope: str) -> list[list[int]]:
        return [heads.tolist() for heads in prune_heads.chosen(scores, ratio, scope)]

    assert kept(0.5, "layer") == [[1, 3], [0, 3], [0, 3]]
    assert kept(0.9, "layer") == [[1], [0], [3]]
    assert kept(0.5, "model") == [[1, 3], [0], [0, 2, 3]], "by the share of their layer, whatever its scale"
    assert kept(0.95, "model") == [[1], [0], [3]], "each layer keeps its best head"


def encoders() -> list[Any]:
    from transformers import (
        AlbertConfig,
        AlbertForSequenceClassification,
        BertConfig,
        BertForSequenceClassification,
        DistilBertConfig,
        DistilBertForSequenceClassification,
        ElectraConfig,
        ElectraForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    torch.manual_seed(0)
    return [BertForSequenceClassification(BertConfig(num_hidden_layers=2, **SMALL)),
            RobertaForSequenceClassification(RobertaConfig(num_hidden_layers=2, **SMALL)),
            ElectraForSequenceClassification(ElectraConfig(num_hidden_layers=2, embedding_size=16, **SMALL)),
            DistilBertForSequenceClassification(DistilBertConfig(vocab_size=99, dim=32, n_heads=4, hidden_dim=64, n_layers=2,
                                                                 initializer_range=0.5)),
            AlbertForSequenceClassification(AlbertConfig(num_hidden_layers=3, embedding_size=16, **SMALL))]


@pytest.mark.slow
def test_other_encoders_are_cut_to_unlike_counts_and_read_back(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    for model in encoders():
        name, blocks, whole = type(model).__name__, prune_heads.attention_blocks(model), answers(model)
        kept = [torch.tensor([0, 2]), torch.tensor([3])][:len(blocks)]
        assert len(blocks) == (1 if name.startswith("Albert") else 2), name
        masked = copy.deepcopy(model)  # the reference: the other heads give nothing
        for (_, out), heads in zip(blocks, kept, strict=True):
            columns = masked.get_submodule(out).weight.data.unflatten(1, (4, 8))
            columns[:, [head for head in range(4) if head not in heads]] = 0
        prune_heads.remove(model, blocks, kept)
        assert [tuple(model.get_submodule(out).weight.shape) for _, out in blocks] == [(32, 8 * len(heads)) for heads in kept]
        torch.testing.assert_close(answers(model), answers(masked), atol=1e-5, rtol=1e-5)
        assert (answers(model) - whole).abs().max() > 0.01, name
        model.save_pretrained(tmp_path / name)
        assert _shapes.is_marked(tmp_path / name)
        for attention in ("eager", "sdpa"):
            found = _shapes.read(AutoModelForSequenceClassification, tmp_path / name, attention, torch.float32)
            torch.testing.assert_close(answers(found), answers(model), atol=1e-5, rtol=1e-5)


def test_attention_of_another_kind_is_refused() -> None:
    from transformers import (
        DebertaV2Config,
        DebertaV2ForSequenceClassification,
        GPT2Config,
        GPT2ForSequenceClassification,
        MPNetConfig,
        MPNetForSequenceClassification,
    )

    torch.manual_seed(0)
    with pytest.raises(TrimtuneError, match="no attention of four plain linear layers"):
        prune_heads.attention_blocks(GPT2ForSequenceClassification(GPT2Config(vocab_size=99, n_embd=32, n_layer=1, n_head=4)))
    # DeBERTa would make four narrower heads of two and answer nonsense, MPNet's table of positions has a column per head
    for model in (DebertaV2ForSequenceClassification(DebertaV2Config(num_hidden_layers=2, **SMALL)),
                  MPNetForSequenceClassification(MPNetConfig(num_hidden_layers=2, **SMALL))):
        with pytest.raises(TrimtuneError, match="answers otherwise, or not at all, with fewer heads"):
            prune_heads.remove(model, prune_heads.attention_blocks(model), [torch.tensor([0, 2])] * 2)


@pytest.mark.slow
def test_a_prefix_needs_the_same_count_in_every_layer(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    with pytest.raises(TrimtuneError, match="scope `model` was asked for a model with a prefix"):
        prune_heads.run(tmp_path, tuned("prefix"), {"scope": "model"}, Setting(helpdesk_rows, max_length=32))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder of a BERT of two narrow layers, with MiniLM's tokenizer and the help desk's labels."""
    from transformers import BertConfig, BertForSequenceClassification

    from trimtune.study.model import locate

    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    config = BertConfig(**{**SMALL, "vocab_size": 30522, "num_labels": len(LABELS)}, num_hidden_layers=2)
    BertForSequenceClassification(config).save_pretrained(folder)
    task.load_tokenizer(locate("minilm")).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cut(small: Path, helpdesk_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a quarter of its neurons and, of all heads together, half its heads."""
    home, setting = tmp_path_factory.mktemp("cut"), Setting(helpdesk_rows, max_length=32)
    prune_ffn.run(home / "ffn", small, {"ratio": 0.75, "epochs": 0, "rows": 32}, setting)
    facts = prune_heads.run(home / "heads", home / "ffn", {"epochs": 0, "rows": 32, "scope": "model"}, setting)
    assert sum(facts["heads"]) == 4
    return home / "heads"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch_eager", "onnx_runtime", "openvino_ir"])
def test_the_engines_run_what_is_left_in_int8(engine: str, cut: Path, tmp_path: Path) -> None:
    """Their graphs in float32 are compared with PyTorch on the way there, by the export itself."""
    part = parts.load("engine", engine)
    if part.available():
        pytest.skip(part.available())
    config = {"precision": "fp32"} if "precision" in part.Config.model_fields else {}
    facts = part.export(tmp_path, cut, config, "int8", TEXTS * 6, 32)
    assert facts["packed"] == "packed"
    wanted = logits(task.load_model(cut), cut)
    found = torch.from_numpy(part.load(tmp_path, 1)(task.encode(task.load_tokenizer(tmp_path), TEXTS, 48)))
    assert (found - wanted).abs().max() < 0.5 * wanted.std()
