"""Few bits for PyTorch's classifiers: packed and unpacked are equal, and the bytes are as few as the facts say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from trimtune.engines import _few_bits_torch, torch_eager
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.ship import parity
from trimtune.tasks import _shapes
from trimtune.tasks import text_classification as task
from trimtune.trim import _few_bits, binary, ternary
from trimtune.tune.recovery import Setting

PARTS = {"binary": binary, "ternary": ternary}
LARGEST = {"binary": 1.2, "ternary": 2.2}
"""bits per weight, scales included"""
FLOAT_MB = 90


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize(("rows", "inputs", "group"), [(3, 384, 128), (2, 384, 0), (5, 7, 0), (1, 1, 0), (4, 33, 11)])
def test_packed_and_unpacked_are_equal_bit_for_bit(kind: str, rows: int, inputs: int, group: int) -> None:
    torch.manual_seed(inputs)
    weight = PARTS[kind].quantize(torch.randn(rows, inputs), group)
    packed, scale = _few_bits_torch.pack(weight, kind, group)
    assert (packed.dtype, scale.dtype) == (torch.uint8, torch.bfloat16)
    assert packed.shape == (rows, -(-inputs // {"binary": 8, "ternary": 5}[kind]))
    assert scale.shape == (rows, _few_bits.grouped(weight, group).shape[1])
    assert torch.equal(_few_bits_torch.unpack(packed, scale, kind, inputs), weight)


def test_the_bytes_by_hand() -> None:
    signs = torch.tensor([[1.0, -1, -1, 1, 1, -1, -1, -1, 1]]) * 0.5
    packed, scale = _few_bits_torch.pack(signs, "binary", 0)
    assert (packed.tolist(), scale.tolist()) == ([[0b00011001, 1]], [[0.5]])
    trits = torch.tensor([[1.0, 0, -1, 0, 1, -1]]) * 2
    packed, scale = _few_bits_torch.pack(trits, "ternary", 0)
    assert (packed.tolist(), scale.tolist()) == ([[2 + 3 * 1 + 9 * 0 + 27 * 1 + 81 * 2, 0]], [[2.0]])


@pytest.mark.parametrize("kind", PARTS)
def test_weights_off_the_grid_are_refused(kind: str) -> None:
    weight = PARTS[kind].quantize(torch.randn(4, 64), 32)
    weight[1, 5] += 0.01
    with pytest.raises(StepFailed, match=rf"\[4, 64\] is not {kind} in groups of 32"):
        _few_bits_torch.pack(weight, kind, 32)


def trimmed(part: ModuleType, source: Path, folder: Path, rows: Path) -> Path:
    part.run(folder, source, {"epochs": 0}, Setting(rows, max_length=32))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), [("binary", "lora"), ("ternary", "prefix")])
def test_what_runs_is_what_the_trim_left(name: str, kind: str, tuned: Callable[[str], Path], helpdesk_rows: Path,
                                         tmp_path: Path) -> None:
    source = trimmed(PARTS[name], tuned(kind), tmp_path / "trim", helpdesk_rows)
    (tmp_path / "engine").mkdir()
    facts = torch_eager.export(tmp_path / "engine", source, {}, name, [], 32)
    assert (facts["packed"], facts["precision"], facts["numerics"]) == ("stored", "fp32", name)
    assert facts["matrices"] == 6 * 6
    assert facts["bits_per_weight"] <= LARGEST[name]
    module, wanted = _few_bits_torch.read(tmp_path / "engine"), load_file(source / "model.safetensors")
    runs = dict(module.named_parameters())
    blocks = [key for key, tensor in wanted.items() if ".layer." in key and tensor.ndim == 2]
    prefix = "base_model." if kind == "prefix" else ""
    assert len(blocks) == 36
    assert all(torch.equal(runs[prefix + key], wanted[key]) for key in blocks)
    size = (tmp_path / "engine" / "model.safetensors").stat().st_size / 1e6
    weights = sum(wanted[key].numel() for key in blocks)
    embeddings = sum(tensor.numel() for key, tensor in wanted.items() if "embeddings" in key and tensor.ndim > 1)
    assert size < (weights * facts["bits_per_weight"] / 8 + 1.02 * embeddings) / 1e6 + 1
    assert size < FLOAT_MB / 5
    inputs = task.encode(task.load_tokenizer(source), ["I was charged twice", "hi"], 32)
    with torch.inference_mode():
        expected: Any = task.load_model(source)(**{key: torch.from_numpy(ids) for key, ids in inputs.items()}).logits
    found = torch_eager.load(tmp_path / "engine", 1)(inputs)
    assert np.abs(found - expected.numpy()).max() < 0.1 * expected.std(), "only the embeddings are rounded"
    allowed = parity.tolerance("torch_eager", name, facts["precision"])
    assert parity.compare("model → engine", expected.numpy(), found, *allowed).passed, "so the gate lets it ship"


@pytest.mark.slow
def test_int4_lies_packed_and_is_never_blown_up(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    facts = torch_eager.export(tmp_path, tuned("prompt"), {}, "int4", [], 32)
    assert (facts["packed"], facts["precision"], facts["matrices"], facts["bits_per_weight"]) == ("packed", "int4", 37, 5.0)
    module = _few_bits_torch.read(tmp_path)
    assert sum(parameter.nbytes for parameter in module.parameters() if parameter.is_floating_point()) < 1_000_000
    inputs = task.encode(task.load_tokenizer(tmp_path), ["I was charged twice", "hi", "the export fails since the update"], 32)
    run = torch_eager.load(tmp_path, 1)
    together, alone = run(inputs), run({name: ids[:1] for name, ids in inputs.items()})
    assert np.abs(together[:1] - alone).max() < 0.05 * together.std(), "rows don't see each other"


@pytest.mark.slow
def test_layers_that_other_trims_cut_are_packed_as_well(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    """Two thin layers in the place of one, with inputs that no group and no byte divides."""
    module: Any = task.load_model(tuned("full"))
    block = module.bert.encoder.layer[0].intermediate
    block.dense = torch.nn.Sequential(torch.nn.Linear(384, 13, bias=False), torch.nn.Linear(13, 1536)).requires_grad_(False)
    _shapes.mark(module.config)
    layers = _few_bits.matrices(module, "test")
    assert len(layers) == 37
    _few_bits.put_on_grid(layers.values(), lambda weight: ternary.quantize(weight, 128))
    _few_bits.leave_on_grid(layers.values())
    setattr(module.config, _few_bits.GRID, {"group": 128})
    assert _few_bits_torch.write(module, tuned("full"), tmp_path, "ternary")["matrices"] == 37
    found = _few_bits_torch.read(tmp_path)
    for name, layer in layers.items():
        assert torch.equal(found.get_submodule(name).weight, layer.weight), name


@pytest.mark.slow
def test_a_folder_that_no_trim_made_is_refused(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match="is not binary"):
        torch_eager.export(tmp_path, tuned("full"), {}, "binary", [], 32)


def test_a_folder_without_formats_is_not_mixed(tuned: Callable[[str], Path], tmp_path: Path) -> None:
    with pytest.raises(StepFailed, match=r"config\.json does not name the format of each linear layer"):
        torch_eager.export(tmp_path, tuned("full"), {}, "mixed", [], 32)


def test_models_without_linear_layers_are_refused(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    model = GPT2ForSequenceClassification(GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=50, num_labels=3))
    with pytest.raises(TrimtuneError, match="int4: GPT2ForSequenceClassification has no plain linear layers"):
        _few_bits_torch.write(model, tmp_path, tmp_path / "out", "int4")
