from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import trimtune.tune.methods
from trimtune import parts
from trimtune.errors import TrimtuneError


@pytest.fixture
def more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of more methods, gone from Python's own memory afterwards."""
    folder = tmp_path / "tune" / "methods"
    folder.mkdir(parents=True)
    monkeypatch.setenv("TRIMTUNE_PARTS", str(tmp_path))
    monkeypatch.setattr(trimtune.tune.methods, "__path__", list(trimtune.tune.methods.__path__))
    parts.source_hash.cache_clear()
    yield folder
    parts.source_hash.cache_clear()
    for path in folder.glob("*.py"):
        sys.modules.pop(f"trimtune.tune.methods.{path.stem}", None)


def test_the_folder_is_the_list() -> None:
    assert parts.names("method") == sorted(parts.names("method"))
    folder = Path(trimtune.tune.methods.__file__ or "").parent
    assert set(parts.names("method")) == {path.stem for path in folder.glob("[!_]*.py")}


def test_hyphens_count_as_underscores() -> None:
    assert parts.load("task", "text-classification") is parts.load("task", "text_classification")


def test_an_unknown_name_gets_the_list_and_the_nearest() -> None:
    with pytest.raises(TrimtuneError) as caught:
        parts.load("method", "lorra", "study.yaml:4: tune")
    assert caught.value.given == "study.yaml:4: tune: unknown method 'lorra'."
    assert ", ".join(parts.names("method")) in caught.value.allowed
    assert "Did you mean 'lora'?" in caught.value.do
    with pytest.raises(TrimtuneError) as caught:
        parts.load("task", "zzz")
    assert "Did you mean" not in caught.value.do


def test_a_name_is_no_path() -> None:
    for name in ("../trainable", "_shared", "__init__", "lora.py", "", "os"):
        with pytest.raises(TrimtuneError):
            parts.load("method", name)


def test_a_docstring_is_read_without_running_the_file(more: Path) -> None:
    (more / "loud.py").write_text('"""A loud method."""\nraise RuntimeError("imported")\n')
    assert parts.doc("method", "loud") == "A loud method."
    assert "loud" in parts.names("method")


def test_a_dropped_file_cannot_take_the_place_of_a_built_in_one(more: Path) -> None:
    (more / "lora.py").write_text('"""Not the real one."""\n')
    assert not parts.doc("method", "lora").startswith("Not the real one")


def test_the_source_hash_follows_the_parts_own_file(more: Path) -> None:
    (more / "mine.py").write_text('"""One."""\n')
    one, lora = parts.source_hash("method", "mine"), parts.source_hash("method", "lora")
    (more / "mine.py").write_text('"""Two."""\n')
    parts.source_hash.cache_clear()
    assert parts.source_hash("method", "mine") != one
    assert parts.source_hash("method", "lora") == lora
    (more / "another.py").write_text('"""Another."""\n')
    parts.source_hash.cache_clear()
    assert parts.source_hash("method", "lora") == lora
