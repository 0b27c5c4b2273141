from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from trimtune.errors import StepFailed, TrimtuneError
from trimtune.process import emit
from trimtune.store import Store, kept, key_of, link_tree, sha256


def write(folder: Path, text: str = "weights") -> dict[str, Any]:
    (folder / "deep").mkdir()
    (folder / "deep" / "model.bin").write_text(text)
    (folder / "config.json").write_text("{}")
    return {"length": len(text), "pid": os.getpid()}


def half_then_fail(folder: Path) -> dict[str, Any]:
    (folder / "half.bin").write_text("half")
    raise ValueError("no gradient")


def half_then_die(folder: Path) -> dict[str, Any]:
    (folder / "half.bin").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def half_way_then_on(folder: Path) -> dict[str, Any]:
    """Dies the first time, and goes on from what it left the second."""
    place = kept(folder)
    assert place is not None
    if not (place / "1-half").exists():
        place.mkdir()
        (place / "1-half").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)
    emit("resumed", text="resumed at half", seconds=100.0, peak_memory_mb=1e6)
    return {}


def homes(store: Store) -> list[Path]:
    return [path for path in store.folder.iterdir() if path.name not in ("tmp", "logs", "checkpoints") and path.is_dir()]


@pytest.fixture
def events() -> list[dict[str, Any]]:
    return []


@pytest.fixture
def store(tmp_path: Path, events: list[dict[str, Any]]) -> Store:
    return Store(tmp_path / "store", events.append)


def make(store: Store, text: str = "weights", **recipe: Any) -> Any:
    return store.step("tune", "lora", write, {"text": text}, config={"text": text}, fresh=False, **recipe)


def states(events: list[dict[str, Any]]) -> list[str]:
    return [event["state"] for event in events if event["kind"] == "step"]


def test_a_finished_step_is_read_back_by_the_next_run(store: Store, events: list[dict[str, Any]]) -> None:
    made = make(store)
    again = make(Store(store.folder, events.append))
    assert states(events) == ["start", "done", "reused"]
    assert (made.reused, again.reused) == (False, True)
    assert again.model_copy(update={"reused": False}) == made
    assert (again.folder / "deep" / "model.bin").read_text() == "weights"
    assert again.files["deep/model.bin"] == sha256(again.folder / "deep" / "model.bin")
    assert again.facts["length"] == 7


def test_whatever_decides_the_outcome_is_in_the_key(store: Store) -> None:
    parent, other = make(store), make(store, "other")
    keys = {artifact.key for artifact in (
        parent, other, make(store, seed=1), make(store, code="x"), make(store, parents=(parent,)), make(store, parents=(other,)),
        make(store, parents=(parent, other)), make(store, parents=(other, parent)),
        store.step("trim", "lora", write, {}, config={"text": "weights"}, fresh=False),
        store.step("tune", "full", write, {}, config={"text": "weights"}, fresh=False))}
    assert len(keys) == 10
    assert len(homes(store)) == 10


def test_the_order_of_a_config_is_not_in_the_key() -> None:
    assert key_of(config={"a": 1, "b": 2}) == key_of(config={"b": 2, "a": 1})
    assert key_of(config={"a": 1}) != key_of(config={"a": "1"})


def test_one_step_is_done_and_noted_once_in_a_run(store: Store) -> None:
    assert make(store) is make(store)
    assert len(store.steps) == 1


def test_get_and_find_read_without_noting(store: Store) -> None:
    assert store.get("tune", "lora", config={"text": "weights"}) is None
    made = make(store)
    assert store.get("tune", "lora", config={"text": "weights"}) == store.find(made.key)
    assert store.find("") is None
    assert store.find("0" * 64) is None
    assert len(store.steps) == 1


def test_dropped_means_made_anew(store: Store, events: list[dict[str, Any]]) -> None:
    store.drop(make(store))
    assert homes(store) == []
    make(store)
    assert states(events) == ["start", "done", "start", "done"]


@pytest.mark.parametrize("damage", ["flip", "shorten", "remove", "record", "no record"])
def test_a_damaged_artifact_is_seen_and_made_again(store: Store, events: list[dict[str, Any]], damage: str) -> None:
    home = make(store).folder
    file = home / "deep" / "model.bin"
    if damage == "flip":
        data = bytearray(file.read_bytes())
        data[3] ^= 1
        file.write_bytes(data)
    elif damage == "shorten":
        file.write_text("weigh")
    elif damage == "remove":
        file.unlink()
    elif damage == "record":
        (home / "artifact.json").write_text('{"key": "abc"')
    elif damage == "no record":
        (home / "artifact.json").unlink()
    artifact = make(Store(store.folder, events.append))
    assert states(events) == ["start", "done", "start", "done"]
    assert not artifact.reused
    assert (artifact.folder / "deep" / "model.bin").read_text() == "weights"
    assert any(home.name in event.get("text", "") for event in events) == (damage != "no record")
    assert list((store.folder / "tmp").iterdir()) == []


def test_a_failure_is_recorded_and_leaves_nothing_half(store: Store, events: list[dict[str, Any]]) -> None:
    with pytest.raises(StepFailed, match="ValueError: no gradient"):
        store.step("tune", "lora", half_then_fail, {})
    assert homes(store) == []
    assert list((store.folder / "tmp").iterdir()) == []
    assert [(step.part, step.cause) for step in store.steps] == [("lora", "ValueError: no gradient")]
    assert states(events) == ["start", "failed"]
    log = next((store.folder / "logs").iterdir()).read_text()
    assert "half_then_fail" in log, "the traceback must be in the step's log"
    with pytest.raises(StepFailed):
        store.step("tune", "lora", half_then_fail, {})
    assert len(store.steps) == 1, "one run tries a recipe once"
    with pytest.raises(StepFailed):
        Store(store.folder, events.append).step("tune", "lora", half_then_fail, {})
    assert states(events) == ["start", "failed"] * 2, "the next run tries again"


@pytest.mark.slow
def test_a_killed_child_is_recorded_and_the_run_goes_on(store: Store) -> None:
    with pytest.raises(StepFailed, match="killed"):
        store.step("tune", "lora", half_then_die, {})
    assert homes(store) == []
    assert list((store.folder / "tmp").iterdir()) == []
    assert "killed" in store.steps[0].cause
    artifact = store.step("tune", "full", write, {"text": "w"})
    assert artifact.facts["pid"] != os.getpid()
    assert artifact.start_seconds > 0
    assert artifact.seconds >= artifact.start_seconds
    assert artifact.peak_memory_mb > 1


def test_a_full_disk_is_a_failure_with_its_cause(store: Store) -> None:
    def full(folder: Path) -> dict[str, Any]:
        raise OSError(28, "No space left on device", str(folder / "model.safetensors"))

    with pytest.raises(StepFailed, match="No space left on device: .*model.safetensors"):
        store.step("tune", "lora", full, {}, fresh=False)
    assert "No space left" in store.steps[0].cause


def test_the_next_run_continues_where_a_killed_one_left_off(store: Store, events: list[dict[str, Any]]) -> None:
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from trimtune.store import Store

        def whole(folder):
            (folder / "a").write_text("a")
            return {{}}

        def die(folder):
            (folder / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

        store = Store(Path({str(store.folder)!r}))
        store.step("data", "rows", whole, {{}}, fresh=False)
        store.step("tune", "lora", die, {{}}, config={{"text": "weights"}}, fresh=False)
        """)
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name.split("-")[0] for path in homes(store)] == ["data"]
    assert len(list((store.folder / "tmp").iterdir())) == 1
    following = Store(store.folder, events.append)
    assert list((store.folder / "tmp").iterdir()) == [], "what the killed run left is swept"
    assert make(following).facts["length"] == 7
    assert following.get("data", "rows") is not None


@pytest.mark.slow
def test_what_a_killed_step_left_is_used_counted_and_then_removed(store: Store) -> None:
    with pytest.raises(StepFailed, match="killed"):
        store.step("tune", "lora", half_way_then_on, {})
    following = Store(store.folder)
    artifact = following.step("tune", "lora", half_way_then_on, {})
    assert 100 < artifact.seconds < 160, "the seconds that led to what was kept count, once"
    assert artifact.peak_memory_mb == 1e6
    assert list((store.folder / "checkpoints").iterdir()) == []


def test_checkpoints_nobody_needs_are_swept(store: Store) -> None:
    done = make(store).folder.name
    for name in (done, "tune-lora-forgotten", "tune-lora-fresh"):
        (store.folder / "checkpoints" / name).mkdir()
    os.utime(store.folder / "checkpoints" / "tune-lora-forgotten", (0, 0))
    Store(store.folder)
    assert [path.name for path in (store.folder / "checkpoints").iterdir()] == ["tune-lora-fresh"]


def test_work_outside_a_store_has_no_place_to_keep_things(tmp_path: Path) -> None:
    (tmp_path / "tmp" / "out").mkdir(parents=True)
    assert kept(tmp_path / "tmp" / "out") is None


def test_what_a_living_run_is_writing_is_not_swept(store: Store) -> None:
    (store.folder / "tmp" / f"tune-lora-abc.{os.getpid()}").mkdir()
    Store(store.folder)
    assert len(list((store.folder / "tmp").iterdir())) == 1


def test_linked_trees_share_bytes_and_not_their_fate(tmp_path: Path, store: Store) -> None:
    source = make(store).folder
    target = tmp_path / "target"
    link_tree(source, target)
    assert sorted(path.name for path in target.rglob("*") if path.is_file()) == ["config.json", "model.bin"]
    assert (target / "deep" / "model.bin").stat().st_ino == (source / "deep" / "model.bin").stat().st_ino
    (target / "config.json").unlink()
    (target / "config.json").write_text('{"new": 1}')
    assert (source / "config.json").read_text() == "{}"
    link_tree(source, target)
    assert (target / "config.json").read_text() == "{}"


def test_a_file_system_without_hard_links_gets_copies(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise OSError(95, "Operation not supported")

    source = make(store).folder
    monkeypatch.setattr(os, "link", refused)
    link_tree(source, tmp_path / "copy")
    assert (tmp_path / "copy" / "deep" / "model.bin").read_text() == "weights"
    assert (tmp_path / "copy" / "deep" / "model.bin").stat().st_nlink == 1


def test_one_study_runs_once_at_a_time(store: Store) -> None:
    with store.locked("helpdesk"):
        with pytest.raises(TrimtuneError, match="'helpdesk' is being run"), Store(store.folder).locked("helpdesk"):
            pass
        with Store(store.folder).locked("another"):
            pass
    with Store(store.folder).locked("helpdesk"):
        pass


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(TrimtuneError, match="can't be written") as caught:
        Store(tmp_path / "file" / "store")
    assert "--runs" in caught.value.do
