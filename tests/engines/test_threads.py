"""The number of threads: swept at export, noted beside the graph, used where it is loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.engines.small_classifier import small_classifier

from trimtune import parts
from trimtune.engines import _graph, _threads
from trimtune.engines._decoding import generate

TEXTS = ["my card was lost", "where is my parcel", "please cancel it"]
CLASSIFIERS = ("torch_eager", "onnx_runtime", "openvino_ir")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    source = small_classifier(tmp_path_factory.mktemp("model"))

    def make(engine: str) -> Path:
        part, folder = parts.load("engine", engine), tmp_path_factory.mktemp(engine)
        if part.available():
            pytest.skip(part.available())
        part.export(folder, source, part.Config().model_dump(), "plain", TEXTS, 32)
        return folder

    return make


@pytest.mark.parametrize(("cores", "tried"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (16, [1, 2, 3, 4, 6, 8, 12, 16]),
                                              (20, [1, 2, 3, 4, 6, 8, 12, 16, 20])])
def test_counts_up_to_all_cores_are_tried(cores: int, tried: list[int]) -> None:
    assert _threads.counts(cores) == tried


@pytest.mark.parametrize(("ratios", "taken"), [([0.5] * 6, True), ([0.95] * 20, False), ([1.0] * 6, False),
                                               ([0.5, 0.5, 0.5, 2.0], True), ([0.5, 0.5, 2.0, 2.0], False)])
def test_all_cores_stand_unless_fewer_are_faster_in_three_of_four_rounds(ratios: list[float], taken: bool) -> None:
    assert _threads.clearly_faster(ratios) is taken


@pytest.mark.parametrize(("seconds", "best"), [({4: 0.02, 3: 0.02, 2: 0.004, 1: 0.02}, 2),
                                               ({4: 0.01, 3: 0.01, 2: 0.01, 1: 0.01}, 4),
                                               ({4: 0.004, 3: 0.02, 2: 0.0, 1: 0.0}, 4)])
def test_a_sweep_keeps_the_soonest_and_ends_where_fewer_are_hopeless(seconds: dict[int, float], best: int) -> None:
    opened: list[int] = []

    def open_(count: int) -> Callable[[], None]:
        opened.append(count)
        return partial(time.sleep, seconds[count])

    found, took = _threads.sweep(open_, 4)
    assert found == best
    assert set(took) == set(opened) == ({4, 3} if seconds[1] == 0 else {1, 2, 3, 4})


@pytest.mark.parametrize(("noted", "cores", "used"), [(1, 2, 1), (2, 2, 2), (4, 2, 2), (None, 3, 3)])
def test_what_is_noted_is_used_where_there_are_so_many_cores(noted: int | None, cores: int, used: int, tmp_path: Path) -> None:
    if noted:
        _graph.note(tmp_path, engine="onnx_runtime", threads=noted)
    assert _threads.used(tmp_path, cores) == used


@pytest.mark.slow
@pytest.mark.parametrize("engine", CLASSIFIERS)
def test_a_classifier_is_noted_with_every_count_and_answers_as_before(engine: str, exported: Callable[[str], Path]) -> None:
    folder = exported(engine)
    before, inputs = _graph.noted(folder), _graph.rows(3, 7, 1000)
    expected = parts.load("engine", engine).load(folder, 2)(inputs)
    found = _threads.noted(folder, engine, "text_classification", TEXTS, 32, cores=2)
    assert found["threads"] in (1, 2)
    assert set(found["threads_ms"]) == {"1", "2"}
    assert min(found["threads_ms"].values()) > 0
    assert _graph.noted(folder) == {**before, **found}
    assert _threads.load(engine, folder, 2)(inputs) == pytest.approx(expected, abs=0.05)  # bf16, where that was faster


@pytest.mark.slow
def test_one_core_is_not_swept_nor_an_engine_that_says_so(exported: Callable[[str], Path]) -> None:
    folder = exported("torch_eager")
    before = _graph.noted(folder)
    assert _threads.noted(folder, "torch_eager", "text_classification", TEXTS, 32, cores=1) == {}
    assert _threads.noted(folder, "torch_compiled", "text_classification", TEXTS, 32, cores=2) == {}
    assert _graph.noted(folder) == before


@pytest.mark.slow
def test_torch_runs_with_the_noted_count(exported: Callable[[str], Path]) -> None:
    import torch

    folder, before = exported("torch_eager"), torch.get_num_threads()
    try:
        for noted, cores, used in ((1, 2, 1), (2, 2, 2), (3, 2, 2)):
            _graph.note(folder, **{**_graph.noted(folder), "threads": noted})
            _threads.load("torch_eager", folder, cores)
            assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch_eager", "onnx_runtime", "gguf_llamacpp"])
def test_a_language_model_is_swept_by_decoding(engine: str, folders: Callable[[str, str], Path], tmp_path: Path) -> None:
    part: Any = parts.load("engine", engine)
    if part.available():
        pytest.skip(part.available())
    part.export(tmp_path, folders("gpt2", "base"), part.Config().model_dump(), "plain", [], 32, "causal_lm")
    expected = generate(part.load(tmp_path, 2), [[5, 6, 7]], (), 8)
    found = _threads.noted(tmp_path, engine, "causal_lm", [], 32, cores=2)
    assert set(found["threads_ms"]) == {"1", "2"}
    assert generate(_threads.load(engine, tmp_path, 2), [[5, 6, 7]], (), 8) == expected
