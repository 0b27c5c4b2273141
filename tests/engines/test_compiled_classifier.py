"""Compiled classifiers: they answer as PyTorch does, on two graphs, whatever comes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
def test_two_graphs_answer_every_batch_and_length(small: Path, tmp_path: Path) -> None:
    facts = torch_compiled.export(tmp_path, small, {"precision": "fp32"}, "plain", [], 64)
    assert facts["difference"] <= 1e-4
    assert (facts["packed"], facts["precision"], facts["left_out"]) == ("plain", "fp32", {})
    before = graphs()
    run = torch_compiled.load(tmp_path, 1)
    assert graphs() - before == 2, "loading compiles what one row needs, and what more need"
    model: Any = task.load_model(small)
    plain = _compiled_classifier.runner(model, compile_=False)
    for batch, tokens in ((1, 1), (1, 2), (5, 1), (64, 3), (2, 128), (7, 33), (1, 128), (3, 17)):
        inputs = _graph.rows(batch, tokens, model.config.vocab_size, padded=True)
        np.testing.assert_allclose(run(inputs), plain(inputs), atol=1e-4, rtol=0, err_msg=f"{batch} rows of {tokens} tokens")
    assert graphs() - before == 2, "no batch and no length compiles anything again"
