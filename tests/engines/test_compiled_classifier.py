"""Compiled classifiers: they answer as PyTorch does, on two graphs, whatever comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.small_classifier import small_classifier

from trimtune.engines import _compiled_classifier, _graph, torch_compiled
from trimtune.tasks import text_classification as task

needs_compiler = pytest.mark.skipif(torch_compiled.available() is not None, reason=str(torch_compiled.available()))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_classifier(tmp_path_factory.mktemp("small"), "prefix")


def graphs() -> int:
    """Graphs that were compiled in this process so far."""
    from torch._dynamo.utils import counters

    return counters["stats"]["unique_graphs"]


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("freezing", [False, True])
def test_two_graphs_answer_every_batch_and_length(freezing: bool, small: Path, tmp_path: Path) -> None:
    facts = torch_compiled.export(tmp_path, small, {"precision": "fp32", "freezing": freezing}, "plain", [], 64)
    assert facts["difference"] <= 1e-4
    assert (facts["packed"], facts["precision"], facts["freezing"], facts["left_out"]) == ("plain", "fp32", freezing, {})
    before = graphs()
    run = torch_compiled.load(tmp_path, 1)
    assert graphs() - before == 2, "loading compiles what one row needs, and what more need"
    model: Any = task.load_model(small)
    plain = _compiled_classifier.runner(model, compile_=False)
    for batch, tokens in ((1, 1), (1, 2), (5, 1), (64, 3), (2, 128), (7, 33), (1, 128), (3, 17)):
        inputs = _graph.rows(batch, tokens, model.config.vocab_size, padded=True)
        np.testing.assert_allclose(run(inputs), plain(inputs), atol=1e-4, rtol=0, err_msg=f"{batch} rows of {tokens} tokens")
        with torch.inference_mode():
            np.testing.assert_allclose(run(inputs), plain(inputs), atol=1e-4, rtol=0, err_msg="where the caller infers")
    assert graphs() - before == 2, "no batch, no length and no caller's mode compiles anything again"


@needs_compiler
@pytest.mark.slow
def test_frozen_weights_are_the_models_own(small: Path) -> None:
    """Inductor's cache knows the graph of the first model, and must not answer with its weights for another of that form."""
    models: list[Any] = [task.load_model(small) for _ in range(2)]
    with torch.no_grad():
        for name, weight in models[1].named_parameters():
            if "dense" in name or "classifier" in name:
                weight.mul_(-1.5)
    inputs = _graph.rows(3, 9, models[0].config.vocab_size, padded=True)
    wanted = [_compiled_classifier.runner(model, compile_=False)(inputs) for model in models]
    for model, logits_BC in zip(models, wanted, strict=True):
        np.testing.assert_allclose(_compiled_classifier.runner(model, freezing=True)(inputs), logits_BC, atol=1e-3, rtol=0)
    assert np.abs(wanted[1] - wanted[0]).max() > 1
