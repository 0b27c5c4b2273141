"""Every trim that lies in the folder hands on a model folder that loads, and leaves what it was given alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.conftest import KINDS, LABELS
from tests.engines.language_models import tuned_folder
from tests.engines.small_classifier import small_classifier
from tests.tasks import small_lm
from tests.trim import lm

from trimtune import parts
from trimtune.store import sha256
from trimtune.tasks import causal_lm
from trimtune.tasks import text_classification as task
from trimtune.tasks._inputs import READING
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


LANGUAGE = [name for name in parts.names("trim") if "causal_lm" in parts.load("trim", name).TASKS]


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folder of (architecture, method), of language models with random weights."""

    def make(base: str, kind: str) -> Path:
        home = tmp_path_factory.mktemp(f"{base}-{kind}")
        small_lm.make(home / "base", base)
        (home / "base" / READING).write_text(json.dumps(lm.READ), encoding="utf-8")
        return tuned_folder(home / "base", kind, home / "tuned")

    return cache(make)


@pytest.mark.slow
@pytest.mark.parametrize(("base", "kind"), [("llama", "prompt"), ("llama", "prefix"), ("gpt2", "lora"), ("gpt2", "prefix")])
@pytest.mark.parametrize("trim", LANGUAGE)
def test_it_hands_on_a_language_model(trim: str, base: str, kind: str, spoken: Callable[[str, str], Path],
                                      tmp_path: Path) -> None:
    import torch

    part, given, rows = parts.load("trim", trim), spoken(base, kind), lm.texts_folder(tmp_path / "texts", 24, 8)
    before = hashes(given)
    part.run(tmp_path / "made", given, short(part.Config, kind).model_dump(), lm.setting(rows))
    assert hashes(given) == before
    assert (tmp_path / "made" / READING).is_file()
    ids = torch.tensor([[5, 9, 11, 3], [7, 8, 2, 0]])
    with torch.inference_mode():
        found = causal_lm.load_model(tmp_path / "made")(input_ids=ids, attention_mask=(ids > 0).long()).logits
    assert found.shape[::2] == (2, 512)
    assert found.isfinite().all()
    untouched = part.NUMERICS is not None and not part.NEEDS_DATA
    assert (tmp_path / "made" / causal_lm.ADAPTER).is_dir() == (kind != "lora" or untouched)
