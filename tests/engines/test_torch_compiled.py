"""Compiled language models: they say what PyTorch says, on two graphs, in whatever process they are loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.engines.conftest import Decoders, Folders
from tests.engines.language_models import BASES, CONFIGS, KINDS, NEW, PROMPTS, alone

from trimtune.engines import _cached_graph, _torch_decoder, torch_compiled
from trimtune.engines._compiled_decoder import CompiledGraph, blocks
from trimtune.engines._decoding import Decoder, generate, padded
from trimtune.errors import StepFailed
from trimtune.process import Worker

LONG = 70
"""tokens of an answer that outgrows a block of the cache"""
needs_compiler = pytest.mark.skipif(torch_compiled.available() is not None, reason=str(torch_compiled.available()))


@pytest.fixture(scope="module")
def exported(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A folder that has been moved, of a Llama with a prefix, and the facts of its export."""
    made, moved = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("moved") / "elsewhere"
    facts = torch_compiled.export(made, folders("llama", "prefix"), {"precision": "fp32"}, "plain", [], 32, "causal_lm")
    shutil.move(made, moved)
    return moved, facts


@needs_compiler
@pytest.mark.slow
def test_it_answers_as_pytorch_on_two_graphs(exported: tuple[Path, dict[str, Any]], folders: Folders, decoders: Decoders) -> None:
    folder, facts = exported
    assert facts["difference"] <= 1e-4
    assert (facts["packed"], facts["precision"]) == ("plain", "fp32")
    for path in folder.rglob("*"):
        assert path.is_dir() or str(folders("llama", "prefix")).encode() not in path.read_bytes(), path
    torch_, before = decoders("llama", "prefix"), graphs()
    decoder = torch_compiled.load(folder, 1)
    assert graphs() - before == 2, "loading compiles what one row needs, and what more need"
    assert decoder.context == torch_.context
    for row, prompt in enumerate(PROMPTS):
        found_TV = decoder.logits(*padded(PROMPTS, left=False))[row, :len(prompt)]
        np.testing.assert_allclose(found_TV, alone(torch_, prompt), atol=1e-4, rtol=0)
    answers = generate(torch_, PROMPTS, (), LONG)
    assert generate(decoder, PROMPTS, (), LONG) == answers
    assert generate(decoder, PROMPTS[:1], (), LONG) == answers[:1]
    long, many = [[5 + index % 400 for index in range(150)]], [*PROMPTS, *PROMPTS, [7, 8, 9]]
    for prompts in (long, many, PROMPTS[:2]):
        assert generate(decoder, prompts, (), NEW) == generate(torch_, prompts, (), NEW)
    assert graphs() - before == 2, "no prompt, answer or batch compiles anything again"


@needs_compiler
@pytest.mark.slow
def test_a_step_in_its_own_process_finds_what_was_compiled(exported: tuple[Path, dict[str, Any]], decoders: Decoders) -> None:
    for _ in range(2):  # the first compiles: other tests may have set torch so that this process wrote under other keys
        with Worker() as worker:
            worker.open(torch_compiled.load, exported[0], 1)
            found, hits, processes = worker.ask(answered, PROMPTS)
    assert found == [tuple(answer) for answer in generate(decoders("llama", "prefix"), PROMPTS, (), NEW)]
    assert hits == 2
    assert not processes, "no pool of compiling processes may stay behind"


@needs_compiler
@pytest.mark.slow
def test_frozen_it_answers_as_pytorch(folders: Folders, decoders: Decoders, tmp_path: Path) -> None:
    config = {"precision": "fp32", "freezing": True}
    facts = torch_compiled.export(tmp_path, folders("llama", "prefix"), config, "plain", [], 32, "causal_lm")
    assert facts["freezing"]
    assert facts["difference"] <= 1e-4
    decoder, before = torch_compiled.load(tmp_path, 1), graphs()
    for prompts in (PROMPTS, PROMPTS[:1]):
        assert generate(decoder, prompts, (), LONG) == generate(decoders("llama", "prefix"), prompts, (), LONG)
    assert graphs() == before, "no prompt, answer or batch compiles anything again"


@needs_compiler
@pytest.mark.slow
def test_an_export_that_answers_otherwise_is_caught(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner: Callable[..., Any] = _cached_graph.past_of
    monkeypatch.setattr(_cached_graph, "past_of", lambda module: [tensor * 0.5 for tensor in inner(module)])
    with pytest.raises(StepFailed, match=r"torch_compiled: with its cache .*\|Δlogit\|"):
        torch_compiled.export(tmp_path, folders("llama", "prefix"), {"precision": "fp32"}, "plain", [], 32, "causal_lm")
    assert not (tmp_path / "engine.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_reference_answers_as_pytorch(base: str, kind: str, decoders: Decoders) -> None:
    """What is compiled, run operator by operator, for every method."""
    torch_ = decoders(base, kind)
    past = _cached_graph.past_of(torch_._module)
    graph = CompiledGraph(blocks(torch_._module), "fp32", compile_=False)
    decoder = _cached_graph.GraphDecoder(graph, past, _torch_decoder.positions_of(torch_._module))
    assert past[0].shape[2] == CONFIGS.get(kind, {}).get("virtual_tokens", 0)
    assert generate(decoder, PROMPTS, (), LONG) == generate(torch_, PROMPTS, (), LONG)
    assert torch_.cache_bytes() < decoder.cache_bytes() < 2 * torch_.cache_bytes(), "slots of whole blocks"


def test_what_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in str(torch_compiled.available())
    assert "g++" in str(torch_compiled.available())


def graphs() -> int:
    """Graphs that were compiled in this process so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


def answered(decoder: Decoder, prompts: list[list[int]]) -> tuple[list[Any], int, list[str]]:
    """Answers, graphs that came out of inductor's cache, and processes that this one has started."""
    import os

    from torch._dynamo.utils import counters

    found = [tuple(answer) for answer in generate(decoder, prompts, (), NEW)]
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    return found, counters["inductor"]["fxgraph_cache_hit"], children.read_text().split() if children.exists() else []
