"""Every trim that lies in the folder hands on a model folder that loads, and leaves what it was given alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import KINDS, LABELS
from tests.engines.small_classifier import small_classifier

from trimtune import parts
from trimtune.store import sha256
from trimtune.tasks import text_classification as task
from trimtune.tune.recovery import Setting


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def short(config: type[Any], kind: str) -> Any:
    """The default, with one epoch of recovery beside whole weights, and beside an adapter as few as may be; by blocks."""
    fields = config.model_fields
    fewest = next((rule.ge for rule in getattr(fields.get("epochs"), "metadata", ()) if hasattr(rule, "ge")), 1)
    wanted = {"epochs": 1 if kind == "full" else fewest, "steps": 1, "unit": "block"}
    return config(**{name: value for name, value in wanted.items() if name in fields})


@pytest.fixture(scope="module")
def source(tuned: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`full` is the whole MiniLM; beside adapters stands a narrow model of four layers."""
    return cache(lambda kind: tuned(kind) if kind == "full" else small_classifier(tmp_path_factory.mktemp(kind), kind, layers=4))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trim", parts.names("trim"))
def test_it_hands_on_a_model_folder(trim: str, kind: str, source: Callable[[str], Path], helpdesk_rows: Path,
                                    tmp_path: Path) -> None:
    import torch

    part, given = parts.load("trim", trim), source(kind)
    before, untouched = hashes(given), part.NUMERICS is not None and not part.NEEDS_DATA
    facts = part.run(tmp_path, given, short(part.Config, kind).model_dump(), Setting(helpdesk_rows, max_length=32))
    assert isinstance(facts, dict)
    assert hashes(given) == before
    if untouched:
        assert before.items() <= hashes(tmp_path).items(), "the engine realizes the numbers: the trim itself changes nothing"
    model, inputs = task.load_model(tmp_path), task.encode(task.load_tokenizer(tmp_path), ["I was charged twice", "hi"], 32)
    with torch.inference_mode():
        logits = model(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits.numpy()
    assert logits.shape == (2, len(LABELS))
    assert np.isfinite(logits).all()
    assert (tmp_path / task.ADAPTER).is_dir() == (kind in ("prefix", "prompt") or (untouched and kind == "lora"))
