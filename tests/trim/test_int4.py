"""int4: the group that a study asks for is what each engine packs by, and llama.cpp says that it has its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from trimtune import parts
from trimtune.engines import gguf_llamacpp
from trimtune.errors import TrimtuneError
from trimtune.trim import _groups, int4
from trimtune.tune.recovery import Setting


def test_the_group_lies_beside_the_model_and_a_later_trim_replaces_it(tuned: Callable[[str], Path], helpdesk_rows: Path,
                                                                      tmp_path: Path) -> None:
    source, last = tuned("full"), tuned("full")
    for name, group in (("one", 64), ("two", 128), ("three", None)):
        (tmp_path / name).mkdir()
        int4.run(tmp_path / name, last, int4.Config(group=group).model_dump(), Setting(helpdesk_rows))
        last = tmp_path / name
    assert [_groups.asked(tmp_path / name, 32) for name in ("one", "two", "three")] == [64, 128, 32]
    assert (last / "model.safetensors").samefile(source / "model.safetensors")
    assert _groups.asked(source, 7) == 7


def test_other_groups_are_refused() -> None:
    with pytest.raises(ValidationError, match="32, 64, 128 or 256"):
        int4.Config.model_validate({"group": 48})


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["torch_eager", "onnx_runtime", "openvino_ir"])
def test_larger_groups_take_fewer_bytes(engine: str, tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    part: Any = parts.load("engine", engine)
    if part.available():
        pytest.skip(part.available())
    sizes = {}
    for group in (32, 128):
        trimmed, folder = tmp_path / f"trimmed{group}", tmp_path / f"engine{group}"
        trimmed.mkdir()
        folder.mkdir()
        int4.run(trimmed, tuned("full"), {"group": group}, Setting(helpdesk_rows))
        part.export(folder, trimmed, {}, "int4", [], 32)
        sizes[group] = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".safetensors", ".onnx", ".bin"))
    # 10.6 million weights in the blocks: a scale (and PyTorch an offset) of 16 bits or more for 32 or for 128 of them
    fewer = 10.6e6 * (1 / 32 - 1 / 128) * 2
    assert 0.7 * fewer < sizes[32] - sizes[128] < 2.6 * fewer


@pytest.mark.slow
def test_llama_cpp_has_groups_of_its_own(lm_tuned: Callable[[str], Path], lm_rows: Path, tmp_path: Path) -> None:
    if gguf_llamacpp.available():
        pytest.skip(gguf_llamacpp.available() or "")
    (tmp_path / "trimmed").mkdir()
    int4.run(tmp_path / "trimmed", lm_tuned("gpt2"), {"group": 64}, Setting(lm_rows))
    with pytest.raises(TrimtuneError, match=r"(?s)groups of 64 was asked for.*its own.*Leave group out"):
        gguf_llamacpp.export(tmp_path, tmp_path / "trimmed", {}, "int4", [], 32)
