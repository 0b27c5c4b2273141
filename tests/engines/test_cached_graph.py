"""Language models on engines that run graphs: with their cache they say what PyTorch says without one."""

from __future__ import annotations

import copy
import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.conftest import Decoders, Folders
from tests.engines.language_models import BASES, CONFIGS, KINDS, NEW, PROMPTS, VOCABULARY, alone
from tests.study.faults import fault

from trimtune import parts
from trimtune.engines import _cached_graph
from trimtune.engines._decoding import generate, padded
from trimtune.engines._torch_decoder import positions_of
from trimtune.errors import StepFailed
from trimtune.tasks import causal_lm

pytestmark = pytest.mark.slow
ENGINES = ("openvino_ir", "onnx_runtime")
WEIGHTS = {".bin", ".onnx", ".safetensors"}


@pytest.fixture(scope="module")
def made(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The runnable folder of (engine, base, method, numerics) and the facts of its export."""

    @cache
    def make(engine: str, base: str, kind: str, numerics: str) -> tuple[Path, dict[str, Any]]:
        part, folder = parts.load("engine", engine), tmp_path_factory.mktemp(f"{engine}-{base}-{kind}-{numerics}")
        config = {"precision": "fp32"} if "precision" in part.Config.model_fields else {}
        return folder, part.export(folder, folders(base, kind), config, numerics, [], 32, "causal_lm")

    return make


@pytest.mark.parametrize(("base", "kind"), [("llama", "lora"), ("llama", "prefix"), ("gpt2", "full"), ("gpt2", "prompt")])
@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_exported_answers_as_pytorch(engine: str, base: str, kind: str, made: Any, decoders: Decoders,
                                             folders: Folders, tmp_path: Path) -> None:
    folder, facts = made(engine, base, kind, "plain")
    assert facts["difference"] <= 1e-4
    assert (facts["packed"], facts["precision"]) == ("plain", "fp32")
    assert json.loads((folder / "engine.json").read_text()) == facts
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    for path in moved.rglob("*"):
        assert path.is_dir() or str(folders(base, kind)).encode() not in path.read_bytes(), path
    decoder, torch_ = parts.load("engine", engine).load(moved, 1), decoders(base, kind)
    assert decoder.context == torch_.context
    ids_BT, mask_BT = padded(PROMPTS, left=False)
    found_BTV = decoder.logits(ids_BT, mask_BT)
    assert found_BTV.dtype == np.float32
    for row, prompt in enumerate(PROMPTS):
        np.testing.assert_allclose(found_BTV[row, :len(prompt)], alone(torch_, prompt), atol=1e-4, rtol=0)
    answers = generate(torch_, PROMPTS, (), NEW)
    assert generate(decoder, PROMPTS, (), NEW) == answers
    assert decoder.cache_bytes() == torch_.cache_bytes()
    assert [generate(decoder, [prompt], (), NEW)[0] for prompt in PROMPTS] == answers
    assert generate(decoder, PROMPTS, (), 3, cached=False) == generate(torch_, PROMPTS, (), 3)
    tokenizers = [causal_lm.load_tokenizer(one) for one in (moved, folders(base, kind))]
    assert len({tuple(one("a b. Once")["input_ids"]) for one in tokenizers}) == 1


@pytest.mark.parametrize("numerics", ["int8", "int4"])
@pytest.mark.parametrize("engine", ENGINES)
def test_packed_weights_shrink_and_stay_near(engine: str, numerics: str, made: Any, decoders: Decoders) -> None:
    folder, facts = made(engine, "gpt2", "full", numerics)
    assert (facts["packed"], facts["precision"]) == ("packed", numerics)
    ids_BT, mask_BT = padded(PROMPTS, left=True)
    decoder = parts.load("engine", engine).load(folder, 1)
    found, wanted = (one.begin(ids_BT, mask_BT) for one in (decoder, decoders("gpt2", "full")))
    error = np.abs(found - wanted).mean() / wanted.std()
    assert 0 < error < {"int8": 0.05, "int4": 0.5}[numerics]
    sizes = [sum(path.stat().st_size for path in one.iterdir() if path.suffix in WEIGHTS)
             for one in (folder, made(engine, "gpt2", "full", "plain")[0])]
    assert sizes[0] < 0.8 * sizes[1]
    single = [decoder.begin(*padded([prompt], left=True))[0] for prompt in PROMPTS]
    assert np.abs(found - np.stack(single)).mean() < 0.05 * wanted.std(), "no row depends on its neighbors"


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", KINDS)
def test_virtual_tokens_are_a_past(base: str, kind: str, decoders: Decoders) -> None:
    """The plain reference of the graphs: the traced module itself, run by PyTorch, for every method."""
    module = decoders(base, kind)._module
    past = _cached_graph.past_of(module)
    assert past[0].shape[2] == CONFIGS.get(kind, {}).get("virtual_tokens", 0)
    decoder = _cached_graph.GraphDecoder(InTorch(module), past, positions_of(module))
    assert _cached_graph.checked(decoder, module, 1e-4, "mine") <= 1e-4
    assert generate(decoder, PROMPTS, (), NEW) == generate(decoders(base, kind), PROMPTS, (), NEW)


@pytest.mark.parametrize("base", BASES)
def test_a_broken_export_is_caught(base: str, decoders: Decoders) -> None:
    for kind in ("prefix", "prompt"):
        module = decoders(base, kind)._module
        past, positions = _cached_graph.past_of(module), positions_of(module)
        dropped = _cached_graph.GraphDecoder(InTorch(module), [tensor[:, :, :0] for tensor in past], positions)
        with pytest.raises(StepFailed, match=r"mine: with its cache .*\|Δlogit\|"):
            _cached_graph.checked(dropped, module, 1e-3, "mine")
    tuned, plain = decoders(base, "lora")._module, decoders(base, "base")._module
    without = _cached_graph.GraphDecoder(InTorch(plain), _cached_graph.past_of(plain), positions_of(plain))
    with pytest.raises(StepFailed, match="differently"):
        _cached_graph.checked(without, tuned, 1e-3, "mine")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_export_that_lost_its_output_layer_is_caught(engine: str, folders: Folders, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is shared with the output layer; the export is given one of its own, drawn anew."""
    inner = _cached_graph.traceable

    def untied(module: torch.nn.Module, name: str) -> torch.nn.Module:
        graph: Any = inner(module, name)
        graph.model = copy.deepcopy(graph.model)
        head = graph.model.lm_head
        graph.model.lm_head = torch.nn.Linear(head.in_features, head.out_features, bias=False).requires_grad_(False)
        return graph

    monkeypatch.setattr(_cached_graph, "traceable", untied)
    with pytest.raises(StepFailed, match=f"{engine}: with its cache"):
        parts.load("engine", engine).export(tmp_path, folders("gpt2", "full"), {}, "plain", [], 32, "causal_lm")


def test_windows_are_refused(tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                           num_attention_heads=2, num_key_value_heads=1, sliding_window=8, max_position_embeddings=64)
    fault(lambda: _cached_graph.traceable(MistralForCausalLM(config), "mine"), "window of 8 tokens", "torch_eager")


class InTorch:
    """The traced module as a graph, not traced."""

    def __init__(self, module: torch.nn.Module) -> None:
        self._module, self._cache = _cached_graph.traceable(module, "mine"), []

    def start(self, past: list[np.ndarray]) -> None:
        self._cache = [torch.from_numpy(tensor) for tensor in past]

    def run(self, *given: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            logits, *self._cache = self._module(*map(torch.from_numpy, given), self._cache)
        return logits.numpy()

    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._cache)

