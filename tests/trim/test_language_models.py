"""Trims of causal language models: weights really go, what is unpruned answers as before, answers on the cache stay true."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.trim import lm
from tests.trim.idle import idle

from trimtune import parts
from trimtune.engines import torch_eager
from trimtune.engines._decoding import padded
from trimtune.engines._export import why_not
from trimtune.engines._torch_decoder import TorchDecoder
from trimtune.errors import TrimtuneError
from trimtune.records import Candidate, Use
from trimtune.tasks import _shapes
from trimtune.tasks import causal_lm as task
from trimtune.trim import binary, distill, low_rank, prune_ffn, prune_heads, prune_weights, ternary
from trimtune.trim._model_folder import base_of
from trimtune.tune import relations
from trimtune.tune.feeds import token_feeds

Tuned = Callable[[str], Path]
KINDS = ("llama", "gpt2")
pytestmark = pytest.mark.slow


def in_bytes(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("kind", KINDS)
def test_idle_neurons_go_first_so_nothing_changes(kind: str, lm_tuned: Tuned, lm_rows: Path, tmp_path: Path) -> None:
    down, columns = {"llama": ("mlp.down_proj.weight", 1), "gpt2": ("mlp.c_proj.weight", 0)}[kind]

    def zero(name: str, tensor: torch.Tensor) -> None:
        if name.endswith(down):
            (tensor.T if columns == 0 else tensor)[:, tensor.shape[columns] // 3:] = 0

    source, folder = idle(lm_tuned(kind), tmp_path / "idle", zero), tmp_path / "pruned"
    facts = prune_ffn.run(folder, source, prune_ffn.Config(epochs=0, rows=16).model_dump(), lm.setting(lm_rows))
    assert facts["importance_kept"] == 1
    width = {"llama": (172, 80), "gpt2": (192, 96)}[kind]
    assert (facts["width_before"], facts["width"]) == width
    states, matrices, biases = {"llama": (64, 3, 0), "gpt2": (48, 2, 1)}[kind]
    gone = facts["blocks"] * (width[0] - width[1]) * (matrices * states + biases)
    assert facts["parameters_before"] - facts["parameters"] == gone
    assert in_bytes(source) - in_bytes(folder) == pytest.approx(4 * gone, abs=200)
    assert base_of(task.load_model(folder)).config.hidden_size == states
    torch.testing.assert_close(lm.logits(folder), lm.logits(source), atol=1e-4, rtol=1e-4)
    lm.decodes_on_its_cache(folder, tmp_path / "engine")


@pytest.mark.parametrize("kind", KINDS)
def test_idle_heads_go_with_the_keys_that_they_share(kind: str, lm_tuned: Tuned, lm_rows: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    def zero(name: str, tensor: torch.Tensor) -> None:
        if name.endswith("o_proj.weight"):
            tensor.unflatten(1, (4, 16))[:, 1::2] = 0  # four groups of two heads of eight channels
        elif name.endswith("attn.c_proj.weight"):
            tensor.unflatten(0, (4, 12))[1::2] = 0

    source, folder = idle(lm_tuned(kind), tmp_path / "idle", zero), tmp_path / "pruned"
    facts = prune_heads.run(folder, source, prune_heads.Config(epochs=0, rows=16).model_dump(), lm.setting(lm_rows))
    assert facts["importance_kept"] == 1
    heads, group, layers = {"llama": (8, 2, 5), "gpt2": (4, 1, 3)}[kind]
    assert (facts["heads_before"], facts["heads"], facts["share_a_key"]) == ([heads] * layers, [heads // 2] * layers, group)
    gone = {"llama": 5 * 64 * (32 + 16 + 16 + 32), "gpt2": 3 * (48 * 24 * 4 + 24 * 3)}[kind]
    assert facts["parameters_before"] - facts["parameters"] == gone
    assert in_bytes(source) - in_bytes(folder) == pytest.approx(4 * gone, abs=200)
    torch.testing.assert_close(lm.logits(folder), lm.logits(source), atol=1e-4, rtol=1e-4)
    assert _shapes.is_marked(folder) == (kind == "gpt2")
    assert prune_heads.reshapes({"scope": "layer"}, json.loads((source / "config.json").read_text())) == (kind == "gpt2")
    if kind == "llama":
        plain: Any = AutoModelForCausalLM.from_pretrained(folder)
        cache = plain(torch.tensor([[1, 2, 3]])).past_key_values.layers[0].keys
        assert cache.shape == (1, 2, 3, 8), "keys of two groups, in plain transformers"
    lm.decodes_on_its_cache(folder, tmp_path / "engine")


@pytest.mark.parametrize("kind", KINDS)
def test_unlike_counts_of_heads_are_read_back(kind: str, lm_tuned: Tuned, lm_rows: Path, tmp_path: Path) -> None:
    config = prune_heads.Config(epochs=0, rows=16, scope="model")
    facts = prune_heads.run(tmp_path / "pruned", lm_tuned(kind), config.model_dump(), lm.setting(lm_rows))
    assert _shapes.is_marked(tmp_path / "pruned") or len(set(facts["heads"])) == 1
    lm.decodes_on_its_cache(tmp_path / "pruned", tmp_path / "engine")


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_of_low_rank_become_thin_and_answer_the_same(kind: str, lm_tuned: Tuned, lm_rows: Path, tmp_path: Path) -> None:
    def flatten(name: str, tensor: torch.Tensor) -> None:
        if tensor.ndim == 2 and (".layers." in name or ".h." in name):
            left, values, right = torch.linalg.svd(tensor, full_matrices=False)
            tensor.copy_(left[:, :6] * values[:6] @ right[:6])

    source, folder = idle(lm_tuned(kind), tmp_path / "flat", flatten), tmp_path / "thin"
    config = low_rank.Config(ratio=0.6, epochs=0, rows=32)
    facts = low_rank.run(folder, source, config.model_dump(), lm.setting(lm_rows))
    assert len(facts["ranks"]) >= {"llama": 25, "gpt2": 9}[kind]
    assert in_bytes(folder) < in_bytes(source) - 0.9 * 4 * (facts["parameters_before"] - facts["parameters"])
    torch.testing.assert_close(lm.logits(folder), lm.logits(source), atol=5e-3, rtol=1e-3)
    lm.decodes_on_its_cache(folder, tmp_path / "engine")


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_keeps_the_layers_that_did_something(kind: str, lm_tuned: Tuned, lm_rows: Path, tmp_path: Path) -> None:
    kept = {"llama": [0, 2, 4], "gpt2": [0, 2]}[kind]

    def zero(name: str, tensor: torch.Tensor) -> None:
        layer = next((int(word) for word in name.split(".") if word.isdigit()), None)
        if layer is not None and layer not in kept and any(part in name for part in ("o_proj", "down_proj", "c_proj")):
            tensor.zero_()

    source, folder = idle(lm_tuned(kind), tmp_path / "idle", zero), tmp_path / "student"
    facts = distill.run(folder, source, distill.Config(epochs=0).model_dump(), lm.setting(lm_rows))
    assert facts["kept"] == kept
    torch.testing.assert_close(lm.logits(folder), lm.logits(source), atol=1e-4, rtol=1e-4)
    lm.decodes_on_its_cache(folder, tmp_path / "engine")
    with pytest.raises(TrimtuneError, match="copies: 1 was given for the task causal_lm"):
        distill.run(tmp_path / "more", source, distill.Config(copies=1).model_dump(), lm.setting(lm_rows))


@pytest.mark.parametrize(("kind", "config", "share"), [("llama", {"pattern": "2:4"}, 0.5), ("gpt2", {"pattern": "2:4"}, 0.5),
                                                       ("gpt2", {"sparsity": 0.7, "criterion": "wanda"}, 0.7)])
def test_zeros_are_where_they_should_be_and_are_not_stored(kind: str, config: dict[str, Any], share: float, lm_tuned: Tuned,
                                                           lm_rows: Path, tmp_path: Path) -> None:
    given = prune_weights.Config(steps=1, epochs=1, learning_rate=1e-3, rows=32, **config).model_dump()
    facts = prune_weights.run(tmp_path / "zeros", lm_tuned(kind), given, lm.setting(lm_rows))
    assert facts["sparsity"] == pytest.approx(share, abs=0.01)
    state = load_file(tmp_path / "zeros" / "model.safetensors")
    name, axis = {"llama": ("model.layers.1.mlp.up_proj.weight", 0), "gpt2": ("transformer.h.1.mlp.c_fc.weight", 1)}[kind]
    weight_NK = state[name] if axis == 0 else state[name].T
    if config.get("pattern"):
        assert ((weight_NK.unflatten(1, (-1, 4)) == 0).sum(2) == 2).all()
    lm.decodes_on_its_cache(tmp_path / "zeros", tmp_path / "dense")
    for numerics, whole in (("sparse", tmp_path / "dense"), ("sparse_int8", tmp_path / "int8")):
        (tmp_path / numerics).mkdir()
        if numerics == "sparse_int8":
            whole.mkdir()
            torch_eager.export(whole, tmp_path / "zeros", {}, "int8", [], 32, "causal_lm")
        made = torch_eager.export(tmp_path / numerics, tmp_path / "zeros", {"precision": "fp32"}, numerics, [], 32, "causal_lm")
        assert made["bytes"] == in_bytes(tmp_path / numerics) < 0.95 * in_bytes(whole)
        row = [[5, 9, 11, 3]]
        found, wanted = (torch_eager.load(place, 1).logits(*padded(row, left=False))  # type: ignore[union-attr]
                         for place in (tmp_path / numerics, whole))
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(("trim", "kind"), [(binary, "gpt2"), (ternary, "llama")])
def test_few_bits_are_stored_and_answer_as_the_trimmed_model(trim: Any, kind: str, lm_tuned: Tuned, lm_rows: Path,
                                                             tmp_path: Path) -> None:
    name = trim.__name__.rpartition(".")[2]
    config = trim.Config(epochs=1, group=16, learning_rate=1e-3)
    facts = trim.run(tmp_path / "few", lm_tuned(kind), config.model_dump(), lm.setting(lm_rows))
    assert facts["matrices"] == {"llama": 35, "gpt2": 12}[kind]
    (tmp_path / "engine").mkdir()
    made = torch_eager.export(tmp_path / "engine", tmp_path / "few", {}, name, [], 32, "causal_lm")
    assert (made["packed"], made["matrices"]) == ("stored", facts["matrices"])
    assert made["bits_per_weight"] < {"binary": 2.3, "ternary": 2.9}[name], "a scale of 16 bits for 16 weights or more"
    assert in_bytes(tmp_path / "engine") < 0.3 * in_bytes(lm_tuned(kind))
    loaded: Any = torch_eager.load(tmp_path / "engine", 1)
    found = loaded.logits(*padded([[5, 9, 11, 3]], left=False))
    with torch.inference_mode():
        wanted = task.load_model(tmp_path / "few")(torch.tensor([[5, 9, 11, 3]])).logits.numpy()
    assert np.abs(found - wanted).mean() < 0.05 * wanted.std(), "embeddings and output layer are int8"
    names = [one for one in loaded._module.state_dict() if one.endswith(("up_proj.weight", "c_fc.weight"))]
    for one in names:
        assert torch.equal(loaded._module.state_dict()[one], task.load_model(tmp_path / "few").state_dict()[one])


@pytest.mark.parametrize(("pruned", "precision"), [(False, "bf16"), (True, "fp32")])
def test_only_attention_brings_a_student_to_look_where_its_teacher_does(pruned: bool, precision: str, lm_tuned: Tuned,
                                                                       lm_rows: Path, tmp_path: Path) -> None:
    """Also where the teacher lost heads before: the student's last layer lacks the same."""
    source = lm_tuned("gpt2")
    if pruned:
        prune_heads.run(tmp_path / "pruned", source, prune_heads.Config(epochs=0, rows=16).model_dump(), lm.setting(lm_rows))
        source = tmp_path / "pruned"
    apart = []
    for attention in (0.0, 3.0):
        folder = tmp_path / str(attention)
        given = distill.Config(layers=1, epochs=4, learning_rate=1e-3, attention=attention)
        distill.run(folder, source, given.model_dump(), lm.setting(lm_rows, precision=precision))
        student, teacher = task.load_model(folder), task.load_model(source)
        relations.watch_both(student, teacher)
        feeds = [token_feeds(model, task, source, task.rows.load(lm_rows), 48, lm.READ)[1] for model in (student, teacher)]
        with torch.inference_mode():
            apart.append(float(relations.beside(feeds[0], student, feeds[1], teacher).answered(range(32))[-1]))
    assert apart[1] < 0.7 * apart[0]


FITTED: list[tuple[Any, dict[str, Any], str]] = [
    (prune_ffn, {}, "llama"), (prune_ffn, {}, "gpt2"), (low_rank, {"ratio": 0.3}, "gpt2"), (prune_heads, {}, "llama"),
    (distill, {"layers": 1, "states": 1.0}, "gpt2"), (distill, {"layers": 2, "attention": 1.0}, "llama"),
    (prune_weights, {"sparsity": 0.8, "steps": 1}, "gpt2"), (ternary, {}, "gpt2")]


@pytest.mark.parametrize(("trim", "config", "kind"), FITTED, ids=lambda given: getattr(given, "__name__", "").rpartition(".")[2])
def test_the_recovery_fit_brings_the_perplexity_down(trim: Any, config: dict[str, Any], kind: str, lm_tuned: Tuned, lm_rows: Path,
                                                     tmp_path: Path) -> None:
    found = {}
    for epochs in (0, 2):
        given = trim.Config(epochs=epochs, learning_rate=1e-3, **config)
        trim.run(tmp_path / str(epochs), lm_tuned(kind), given.model_dump(), lm.setting(lm_rows))
        found[epochs] = lm.perplexity(tmp_path / str(epochs), lm_rows)
    assert found[2] < 0.99 * found[0]


def test_the_engines_run_what_is_left_and_gguf_says_what_it_cannot(lm_tuned: Tuned, lm_rows: Path, tmp_path: Path) -> None:
    heads, thin, plain = tmp_path / "heads", tmp_path / "thin", tmp_path / "plain"
    setting = lm.setting(lm_rows)
    prune_heads.run(heads, lm_tuned("gpt2"), prune_heads.Config(epochs=0, rows=16).model_dump(), setting)
    low_rank.run(thin, heads, low_rank.Config(epochs=0, rows=32).model_dump(), setting)
    prune_ffn.run(tmp_path / "narrow", lm_tuned("llama"), prune_ffn.Config(epochs=0, rows=16).model_dump(), setting)
    prune_heads.run(plain, tmp_path / "narrow", prune_heads.Config(epochs=0, rows=16).model_dump(), setting)
    for numerics in ("int8", "int4"):
        (tmp_path / numerics).mkdir()
        torch_eager.export(tmp_path / numerics, thin, {}, numerics, [], 32, "causal_lm")
        found, wanted = (one.logits(*padded([[5, 9, 11]], left=False)) for one in (
            torch_eager.load(tmp_path / numerics, 1), TorchDecoder(task.load_model(thin))))  # type: ignore[union-attr]
        assert np.abs(found - wanted).mean() < {"int8": 0.1, "int4": 0.5}[numerics] * wanted.std()
    for engine, source in (("onnx_runtime", thin), ("openvino_ir", thin), ("gguf_llamacpp", plain)):
        part = parts.load("engine", engine)
        if not part.available():
            (tmp_path / engine).mkdir()
            config = {"precision": "fp32"} if engine != "onnx_runtime" else {}
            facts = part.export(tmp_path / engine, source, config, "plain", [], 32, "causal_lm")
            assert facts["difference"] < part.TOLERANCE.get("fp32", part.TOLERANCE["plain"])
    use = {name: Use(name=name, config=parts.load(kind, name).Config().model_dump())
           for kind, name in (("trim", "low_rank"), ("trim", "prune_heads"), ("engine", "gguf_llamacpp"), ("method", "full"))}
    for trim, refused in (("low_rank", "gpt2"), ("prune_heads", "gpt2"), ("low_rank", "llama"), ("prune_heads", "")):
        candidate = Candidate(method=use["full"], trims=(use[trim],), engine=use["gguf_llamacpp"])
        why = why_not(candidate, "causal_lm", lm_tuned(refused or "llama")) or ""
        assert (f"builds a model from its config alone, and {trim} leaves" in why) == bool(refused) or "not available" in why
