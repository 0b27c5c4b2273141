"""What of a model on the hub is fetched."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from trimtune.study.model import locate

HELD = ("config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "spiece.model", "chat_template.jinja",
        "pytorch_model.bin", "README.md")


def test_a_hub_model_comes_with_its_chat_template_and_without_pickles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, allow_patterns: list[str]) -> str:
        for file in HELD:
            if any(fnmatch(file, pattern) for pattern in allow_patterns):
                (tmp_path / file).write_text("{}", encoding="utf-8")
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found: Any = locate("somebody/a-model")
    assert {path.name for path in found.iterdir()} == set(HELD) - {"pytorch_model.bin", "README.md"}
