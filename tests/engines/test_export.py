"""The engine step's key holds what decides its outcome beside the model and the rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.engines.small_classifier import small_classifier

from trimtune import parts
from trimtune.engines import _graph
from trimtune.engines._export import exported
from trimtune.records import Candidate, DataSpec, Study, Use
from trimtune.store import Store
from trimtune.study.stored import prepared
from trimtune.tasks._base import base_of


def test_versions_go_by_the_name_that_is_imported() -> None:
    import torch

    found = _graph.versions(["torch", "yaml", "no_such_package"])
    assert found["torch"] == torch.__version__.partition("+")[0] or found["torch"] == torch.__version__
    assert found["yaml"], "installed as PyYAML"
    assert found["no_such_package"] is None


@pytest.mark.slow
def test_another_version_of_a_library_exports_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Use(name="torch_eager", config=parts.load("engine", "torch_eager").Config().model_dump())
    study = Study(name="keys", model=str(small_classifier(tmp_path / "model")), task="text_classification", tune=(), trim=(),
                  engine=(engine,), data=DataSpec(train="helpdesk"))
    store = Store(tmp_path / "store")
    rows, facts = prepared(study, store)
    base, candidate = base_of(study, facts.labels, store), Candidate(method=Use(name="untuned"), trims=(), engine=engine)
    first, again = (exported(candidate, base, rows, study, store) for _ in range(2))
    assert first.key == again.key
    assert first.config["libraries"]["transformers"]
    monkeypatch.setattr(_graph, "_version", lambda package: "0.0")
    assert exported(candidate, base, rows, study, store).key != first.key
