"""Small language models, as each method leaves them on disk and as PyTorch decodes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from tests.engines.language_models import small_gpt2, tuned_folder

from trimtune.engines._torch_decoder import TorchDecoder
from trimtune.tasks import causal_lm

Folders = Callable[[str, str], Path]
Decoders = Callable[..., TorchDecoder]


@pytest.fixture(scope="session")
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The model folder of (architecture, method); `base` is the untouched one."""

    @cache
    def make(base: str, kind: str) -> Path:
        home = tmp_path_factory.mktemp(f"{base}-{kind}")
        if kind != "base":
            return tuned_folder(make(base, "base"), kind, home)
        if base == "gpt2":
            return small_gpt2(home)
        found: Path = request.getfixturevalue("shared_data") / "models" / "stories260K"
        if not found.is_dir():
            pytest.skip(f"needs {found}")
        return found

    return make


@pytest.fixture(scope="session")
def decoders(folders: Folders) -> Decoders:
    return cache(lambda base, kind, merge=True: TorchDecoder(causal_lm.load_model(folders(base, kind), merge=merge)))
