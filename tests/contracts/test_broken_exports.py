"""A broken export is refused on every engine, with the engine and the figure named: at export, or by the gate of `ship`.

What is traced, compiled or called comes from `_graph.logits_only`, so it is broken there: the reference that it is checked
against stays whole. An engine that takes its module from elsewhere fails here, since nothing would be refused.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engines.small_classifier import small_classifier

from trimtune import parts
from trimtune.engines import _graph
from trimtune.errors import StepFailed
from trimtune.ship import label_gate, padding, parity
from trimtune.study import data

pytestmark = pytest.mark.slow
TASK = "text_classification"
ENGINES = [name for name in parts.names("engine") if TASK in parts.load("engine", name).TASKS]
BREAKS = ("mask ignored", "wrong padding side", "labels permuted", "weights zeroed")
LONG = {name for name in ENGINES if getattr(parts.load("engine", name), "ONLY_IF_NAMED", False)}
OF_ANY = ("plain", "int8", "int4", "bf16")
"""numerics that any weights can be given; the others store what their own trims left, and refuse the rest"""
EXPORTS = [(name, numerics, way) for name in ENGINES for numerics in OF_ANY
           if numerics in parts.load("engine", name).NUMERICS[TASK]
           for way in (BREAKS if numerics == "plain" and name not in LONG else BREAKS[:1])]
"""one break of int8, and of engines whose exports take long"""
FIGURE = re.compile(r"\|Δlogit\| (\d|nan|inf)")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_classifier(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def texts(helpdesk_rows: Path) -> list[str]:
    return data.load(helpdesk_rows).validation.texts


@pytest.fixture(scope="module")
def whole(source: Path, texts: list[str]) -> tuple[Any, Any]:
    """What the model itself answers: the usual batches, and the padded one."""
    return parity.model_logits(source, TASK, texts, 64, merge=True), padding.model(source, TASK, texts[:32], 64)


def broken(way: str) -> Callable[[Any], Any]:
    """What stands in for `_graph.logits_only`."""
    import torch

    whole = _graph.logits_only

    class Broken(torch.nn.Module):
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            if way == "mask ignored":
                attention_mask = torch.ones_like(attention_mask)
            if way == "wrong padding side":
                attention_mask = attention_mask.flip(1)
            logits_BC: torch.Tensor = self.module(input_ids, attention_mask)
            return torch.cat([logits_BC[:, 1:], logits_BC[:, :1]], 1) if way == "labels permuted" else logits_BC

    def make(model: Any) -> Any:
        if way == "weights zeroed":
            model = copy.deepcopy(model)
            for parameter in model.parameters():
                parameter.data.zero_()
        return Broken(whole(model)).eval()

    return make


@pytest.mark.parametrize(("engine", "numerics", "way"), EXPORTS)
def test_a_broken_export_is_refused(engine: str, numerics: str, way: str, source: Path, texts: list[str], whole: tuple[Any, Any],
                                    tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = parts.load("engine", engine)
    if part.available():
        pytest.skip(part.available())
    monkeypatch.setattr(_graph, "logits_only", broken(way))
    try:
        facts = part.export(tmp_path, source, part.Config().model_dump(), numerics, texts, 64)
    except StepFailed as failure:
        refused = failure.cause
        assert not (tmp_path / "engine.json").exists(), "what is refused is not finished"
    else:
        found = parity.engine_logits(tmp_path, engine, TASK, texts, 64)
        padded = padding.engine(tmp_path, engine, TASK, texts[:32], 64)
        hops = [label_gate.engine_hop(engine, numerics, facts["precision"], one, other)
                for one, other in zip(whole, (found, padded), strict=True)]
        failed = [hop for hop in hops if not hop.passed]
        assert failed, f"nothing refused it: {hops}"
        refused = str(parity.ParityFailed(failed[0]))
    assert engine in refused
    assert FIGURE.search(refused), refused
