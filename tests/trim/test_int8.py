"""int8 as a trim: a word for the engine, not a change of files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from trimtune.trim import int8
from trimtune.tune.recovery import Setting


def test_it_shares_the_sources_bytes(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    source = tuned("lora")
    int8.run(tmp_path, source, {}, Setting(helpdesk_rows))
    files = [path.relative_to(source) for path in source.rglob("*") if path.is_file()]
    assert Path("adapter/adapter_model.safetensors") in files
    for name in files:
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes()
    weights = Path("adapter/adapter_model.safetensors")
    assert (tmp_path / weights).stat().st_ino == (source / weights).stat().st_ino
