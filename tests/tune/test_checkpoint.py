"""A fit that is killed in its middle and goes on ends as the one that nobody disturbed."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtune import parts
from trimtune.errors import StepFailed
from trimtune.records import Use
from trimtune.store import Store
from trimtune.tune import checkpoint, fits, fitting, loop
from trimtune.tune.fits import Fits
from trimtune.tune.optimizer import Masters
from trimtune.tune.recovery import Setting

CLOCK = {"train_seconds", "checkpoint_seconds", "seconds_to_99", "rows_per_s", "tokens_per_s"}


def use(name: str) -> Use:
    return Use(name=name, config=parts.load("method", name).Config().model_dump())


def told(facts: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in CLOCK}


def killed_after(saves: int, work: Any, folder: Path, **arguments: Any) -> dict[str, Any]:
    """The work with a checkpoint at each step, killed by signal 9 in the step after the `saves`-th one."""
    save, done = checkpoint.Checkpoints._save, [0]

    def saved(self: checkpoint.Checkpoints, *state: Any) -> None:
        if done[0] == saves:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, *state)
        done[0] += 1

    os.environ["TRIMTUNE_CHECKPOINT_SECONDS"] = "0"
    checkpoint.Checkpoints._save = saved  # type: ignore[method-assign]
    return work(folder, **arguments)


def killed_fit(folder: Path, **arguments: Any) -> dict[str, Any]:
    return killed_after(4, fitting.fit, folder, **arguments)


def killed_trim(folder: Path, trim: str, **arguments: Any) -> dict[str, Any]:
    return killed_after(4, parts.load("trim", trim).run, folder, **arguments)


def short_of_memory(folder: Path, **arguments: Any) -> dict[str, Any]:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + 100 * 2**20,) * 2)
    return fitting.fit(folder, **arguments)


def short_of_disk(folder: Path, **arguments: Any) -> dict[str, Any]:
    """A fit whose files may have 1 MB: its checkpoints don't fit, and nor does its model."""
    os.environ["TRIMTUNE_CHECKPOINT_SECONDS"] = "0"
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
    return fitting.fit(folder, **arguments)


def fit_with(work: Any, method: str, small: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> Any:
    study, _, base, rows = small
    study = study.model_copy(update={"fit": study.fit.model_copy(update={"epochs": 2, "max_length": 16})})
    low, high = parts.load("method", method).LEARNING_RATES
    monkeypatch.setattr(fits.fitting, "fit", work)
    try:
        return Fits(use(method), study, base, rows, store)((low * high) ** 0.5, 0)
    finally:
        monkeypatch.undo()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full", "head", "prefix"])
def test_killed_in_its_middle_it_ends_with_the_same_bytes(method: str, small: Any, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []
    whole = fit_with(fitting.fit, method, small, Store(tmp_path / "whole"), monkeypatch)
    store = Store(tmp_path / "killed")
    with pytest.raises(StepFailed, match="killed"):
        fit_with(killed_fit, method, small, store, monkeypatch)
    left = store.folder / "checkpoints" / whole.folder.name
    assert [int(path.name[:9]) for path in sorted(left.glob("*.safetensors"))] == [3, 4]
    again = Store(tmp_path / "killed", events.append)
    resumed = fit_with(fitting.fit, method, small, again, monkeypatch)
    where = "epoch 1, step 4 of 60" if method == "head" else "epoch 2, step 4 of 6"  # 3 batches a pass; the head makes 10
    assert [event["text"] for event in events if event["kind"] == "resumed"] == [f"resumed at {where}"]
    assert resumed.files == whole.files
    assert told(resumed.facts) == told(whole.facts)
    assert not left.exists(), "a complete step needs no checkpoint"


@pytest.mark.slow
@pytest.mark.parametrize(("trim", "config", "steps"), [
    ("prune_ffn", {"epochs": 2, "rows": 32}, "epoch 2, step 4 of 6"),
    ("distill", {"epochs": 1, "copies": 1, "states": 1, "attention": 1}, "epoch 1, step 4 of 6")])
def test_a_trim_goes_on_in_the_middle_of_its_recovery(trim: str, config: dict[str, Any], steps: str, tuned: Any,
                                                      helpdesk_rows: Path, tmp_path: Path) -> None:
    arguments = {"source": tuned("full"), "config": config, "setting": Setting(helpdesk_rows, max_length=16, precision="fp32")}
    work = parts.load("trim", trim).run
    whole = Store(tmp_path / "whole").step("trim", trim, work, arguments)
    with pytest.raises(StepFailed, match="killed"):
        Store(tmp_path / "killed").step("trim", trim, killed_trim, {**arguments, "trim": trim})
    events: list[dict[str, Any]] = []
    resumed = Store(tmp_path / "killed", events.append).step("trim", trim, work, arguments)
    assert [event["text"] for event in events if event["kind"] == "resumed"] == [f"resumed at {steps}"]
    assert resumed.files == whole.files
    assert told(resumed.facts["recovery"]) == told(whole.facts["recovery"])


@pytest.mark.slow
def test_out_of_memory_is_a_failure_with_its_cause(small: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(StepFailed, match="out of memory"):
        fit_with(short_of_memory, "full", small, store, monkeypatch)
    assert "out of memory" in store.steps[-1].cause
    assert fit_with(fitting.fit, "head", small, store, monkeypatch).facts["validation_score"] > 0.4  # the study goes on


@pytest.mark.slow
def test_a_full_disk_stops_no_fit_before_its_model_has_to_be_written(small: Any, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[dict[str, Any]] = []
    store = Store(tmp_path / "store", events.append)
    with pytest.raises(StepFailed, match="File too large"):
        fit_with(short_of_disk, "full", small, store, monkeypatch)
    warnings = [event["text"] for event in events if event["kind"] == "warning"]
    assert len(warnings) == 1
    assert "no checkpoint can be kept" in warnings[0]
    assert "File too large" in warnings[0]
    progress = [event for event in events if event["kind"] == "progress"]
    assert progress[-1]["done"] == progress[-1]["total"], "the fit itself went on to its end"
    assert fit_with(fitting.fit, "head", small, store, monkeypatch).facts["validation_score"] > 0.4


@pytest.fixture
def toy() -> tuple[torch.nn.Module, Masters, loop.Fitted]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    return model, Masters(list(model.parameters()), [one.detach().clone() for one in model.parameters()], 1e-2, 10), loop.Fitted()


def work(model: torch.nn.Module, masters: Masters, steps: int) -> None:
    for _ in range(steps):
        model(torch.randn(8, 4)).square().mean().backward()
        masters.step()


def test_the_model_its_buffers_and_the_generators_come_back(toy: Any, tmp_path: Path) -> None:
    import random

    import numpy as np

    model, masters, fitted = toy
    work(model, masters, 3)
    fitted.curve, fitted.best, fitted.rows = [0.25], masters.snapshot(), 24
    keep = checkpoint.Checkpoints(tmp_path / "kept", every=0)
    keep.restore(model, masters, fitted)
    keep.save_if_due(model, masters, fitted)
    work(model, masters, 2)
    expected = [value.clone() for value in model.state_dict().values()]
    drawn = (random.random(), np.random.rand(), torch.rand(()))  # noqa: NPY002
    work(model, masters, 2)
    del keep

    after = loop.Fitted()
    checkpoint.Checkpoints(tmp_path / "kept").restore(model, masters, after)
    assert (masters.step_count, after.curve, after.rows) == (3, [0.25], 24)
    assert all(map(torch.equal, after.best, fitted.best))
    work(model, masters, 2)
    assert all(map(torch.equal, model.state_dict().values(), expected))
    assert drawn == (random.random(), np.random.rand(), torch.rand(()))  # noqa: NPY002


@pytest.mark.parametrize("damage", ["flip", "shorten"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before_it(toy: Any, damage: str, tmp_path: Path) -> None:
    model, masters, fitted = toy
    keep = checkpoint.Checkpoints(tmp_path / "kept", every=0)
    for _ in range(4):
        work(model, masters, 1)
        keep.save_if_due(model, masters, fitted)
    files = sorted((tmp_path / "kept").glob("*.safetensors"))
    assert [int(path.name[:9]) for path in files] == [3, 4]
    data = bytearray(files[1].read_bytes())
    data[len(data) // 2] ^= 1
    files[1].write_bytes(data if damage == "flip" else data[:100])
    del keep
    checkpoint.Checkpoints(tmp_path / "kept").restore(model, masters, fitted)
    assert masters.step_count == 3
    files[0].write_bytes(b"")
    checkpoint.Checkpoints(tmp_path / "kept").restore(model, masters, fitted)
    assert masters.step_count == 3, "nothing whole is left, so nothing is touched"


def test_the_next_one_waits_forty_times_what_the_last_one_took(tmp_path: Path) -> None:
    keep = checkpoint.Checkpoints(tmp_path / "kept")
    for cost, distance in ((0.01, 10), (1, 40)):
        keep._wait(cost)
        assert keep.due - checkpoint.time.monotonic() == pytest.approx(distance, abs=0.5)


def test_two_processes_do_not_share_a_fit(toy: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_LOCK_SECONDS", 0.1)
    first, second = (checkpoint.Checkpoints(tmp_path / "kept", every=0) for _ in range(2))
    assert (first.on, second.on) == (True, False)
    (tmp_path / "kept" / "fresh").write_text("what the first is writing")
    third = checkpoint.Checkpoints(tmp_path / "kept", every=0)
    third.save_if_due(*toy)
    second.save_if_due(*toy)
    assert not list((tmp_path / "kept").glob("*.safetensors"))
    assert (tmp_path / "kept" / "fresh").exists(), "they leave the first one's file alone"


def test_where_nothing_can_be_written_the_fit_goes_on(toy: Any, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file where the folder should be")
    keep = checkpoint.Checkpoints(tmp_path / "kept", every=0)
    keep.restore(*toy)
    keep.save_if_due(*toy)
    assert not keep.on


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to a read-only folder")
def test_a_read_only_folder_costs_the_fit_nothing(toy: Any, tmp_path: Path) -> None:
    keep = checkpoint.Checkpoints(tmp_path / "kept", every=0)
    (tmp_path / "kept").chmod(0o500)
    keep.save_if_due(*toy)
    (tmp_path / "kept").chmod(0o700)
    assert not keep.on
