"""A small finished run: real rows, MiniLM, a short LoRA fit, PyTorch's engine; the records as flow writes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Once
from tests.ship import lm_run

from trimtune.engines._export import exported
from trimtune.process import Worker
from trimtune.records import Artifact, Candidate, DataSpec, Fit, Reading, Study, Use
from trimtune.results import Choice, Result, Row, Search, SeedFit
from trimtune.ship import parity
from trimtune.store import Store, sha256
from trimtune.study import data
from trimtune.study.uses import defaults
from trimtune.tasks._base import base_of
from trimtune.trim._chain import trimmed
from trimtune.tune import fitting

RUN = "small"


def _some(split: data.Split, count: int) -> data.Split:
    step = max(1, len(split.texts) // count)
    return data.Split(split.texts[::step][:count], split.labels[::step][:count])


def _save_rows(folder: Path, *, rows: data.Rows) -> dict[str, Any]:
    data.save(rows, folder)
    return {"test_labels": rows.test.labels}


def _use(kind: str, name: str, **config: Any) -> Use:
    plain = defaults(kind, [name])[0]
    return plain.model_copy(update={"config": {**plain.config, **config}, "given": config})


@pytest.fixture(scope="session")
def finished(once: Once) -> Path:
    """The run folder `runs/small`, with two candidates: LoRA as it is (picked), and with int8."""
    return once("finished", lambda home: _finish(home / "runs")) / "runs" / RUN


def _finish(runs: Path) -> None:
    whole = data.read(DataSpec(train="helpdesk"), seed=0)
    counts = {"train": 64, "validation": 60, "test": 60}
    rows = data.Rows(**{name: _some(getattr(whole, name), count) for name, count in counts.items()},
                     facts=whole.facts.model_copy(update={"rows": counts}))
    lora, engine = defaults("method", ["lora"])[0], _use("engine", "torch_eager", precision="fp32")
    study = Study(name=RUN, model="minilm", task="text_classification", data=DataSpec(train="helpdesk"), tune=(lora,),
                  trim=((), defaults("trim", ["int8"])), engine=(engine,), fit=Fit(epochs=1, batch_size=16, max_length=48))
    store = Store(runs / ".store")
    stored = store.step("rows", "helpdesk", _save_rows, {"rows": rows}, fresh=False)
    base = base_of(study, rows.facts.labels, store)
    settings = {"task": study.task, "model_name": study.model, "method": lora.name, "config": lora.config, "learning_rate": 8e-3,
                "epochs": 1, "batch_size": 16, "max_length": 48, "precision_": "fp32"}
    tuned = store.step("tune", "lora", fitting.fit, {**settings, "base": base.folder, "rows": stored.folder, "seed": 0},
                       config=settings, parents=(base, stored))
    lines, predictions = [], {}
    for trims in study.trim:
        candidate = Candidate(method=lora, trims=trims, engine=engine)
        model = trimmed(trims, tuned, stored, study, store)[-1]
        runnable = exported(candidate, model, stored, study, store)
        with Worker() as worker:
            logits_NC = worker.call(parity.engine_logits, runnable.folder, engine.name, study.task, rows.test.texts, 48)
        predictions[candidate.name] = tuple(int(best) for best in logits_NC.argmax(-1))
        right = sum(map(int.__eq__, predictions[candidate.name], rows.test.labels)) / 60
        accuracy = Reading(name="accuracy", value=right, unit="fraction", better="higher", n=60, low=right - 0.1,
                           high=right + 0.1, interval="Wilson 95%")
        lines.append(Row(candidate=candidate, status="measured", packed=runnable.facts["packed"], artifact=runnable.key,
                         trimmed=model.key, readings={"accuracy": accuracy}))
    search = Search(method=lora, trials_asked=1, trials=(), seeds_asked=1, learning_rate=8e-3, seconds=1.0,
                    seeds=(SeedFit(seed=0, validation_score=0.5, artifact=tuned.key),))
    choice = Choice(picked=lines[0].name, runner_up=lines[1].name, binding_limit=None, rejected=(), sentence="It is the one.")
    result = Result(study=study, data=rows.facts, machine={"cpu": "a test's", "cores": 2}, rows=tuple(lines), steps=(),
                    searches=(search,), choice=choice, predictions=predictions, truth=tuple(rows.test.labels),
                    version="0.1.0", created="2026-01-01")
    (runs / RUN).mkdir()
    (runs / RUN / "result.json").write_text(result.model_dump_json())


@pytest.fixture(scope="session")
def bundle(finished: Path, once: Once) -> Path:
    """What ships from it. Read only: copy it to change it."""
    from trimtune.ship.bundle import ship

    return once("shipped", lambda home: ship(finished, home / "bundle")) / "bundle"


@pytest.fixture(scope="session")
def lm_finished(shared_data: Path, once: Once) -> Path:
    """The run folder of a small language model. Read only."""
    model = shared_data / "models" / "stories260K"
    return once("lm_finished", lambda home: lm_run.make(home / "runs", model)) / "runs" / lm_run.RUN


@pytest.fixture(scope="session")
def lm_bundle(lm_finished: Path, once: Once) -> Path:
    """What ships from it, LoRA in float32. Read only: copy it to change it."""
    from trimtune.ship.bundle import ship

    return once("lm_shipped", lambda home: ship(lm_finished, home / "bundle")) / "bundle"


@pytest.fixture
def own_lm_run(lm_finished: Path, tmp_path: Path) -> Path:
    """The run of a language model again, in files of its own."""
    return _own(lm_finished, tmp_path)


@pytest.fixture
def own_run(finished: Path, tmp_path: Path) -> Path:
    """The run again, in files of its own."""
    return _own(finished, tmp_path)


def _own(run: Path, tmp_path: Path) -> Path:
    passing = shutil.ignore_patterns(".probe-*")  # a store that another process opens tries so whether it may write
    return Path(shutil.copytree(run.parent, tmp_path / "runs", ignore=passing)) / run.name


@pytest.fixture
def forge() -> Callable[[Path, Callable[[Path], None]], None]:
    """Change an artifact's folder and record the new hashes, as a faulty step of the flow would have left them."""
    def change(folder: Path, edit: Callable[[Path], None]) -> None:
        edit(folder)
        artifact = Artifact.model_validate_json((folder / "artifact.json").read_bytes())
        files = {name: sha256(folder / name) for name in artifact.files if (folder / name).exists()}
        (folder / "artifact.json").write_text(artifact.model_copy(update={"files": files}).model_dump_json())

    return change


def folder_of(run: Path, key: str) -> Path:
    """Where the run's store keeps an artifact."""
    return next(path for path in (run.parent / ".store").glob(f"*-{key[:16]}"))


def result_of(run: Path) -> Result:
    return Result.model_validate_json((run / "result.json").read_bytes())


def tree(folder: Path) -> dict[str, int]:
    """Every file below a folder with its size, to see that nothing came or went."""
    return {os.fspath(path.relative_to(folder)): path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}


