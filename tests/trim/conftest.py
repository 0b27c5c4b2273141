"""What several trims are tried on."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from tests.conftest import ROOT
from tests.trim import lm

from trimtune.tasks import text_classification as task
from trimtune.tune.recovery import Setting, recover


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole help desk set."""
    from trimtune.records import DataSpec
    from trimtune.study import data

    folder = tmp_path_factory.mktemp("rows")
    data.save(data.read(DataSpec(train="helpdesk"), seed=0), folder)
    return folder


@pytest.fixture(scope="session")
def small(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small BERT of two blocks, tuned to the set."""
    from transformers import BertConfig, BertForSequenceClassification

    from trimtune.study import data
    from trimtune.study.model import locate

    folder = tmp_path_factory.mktemp("small")
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=2,
                                                     intermediate_size=160, num_labels=len(data.load(rows).facts.labels)))
    task.load_tokenizer(locate("minilm")).save_pretrained(folder)
    recover(model, folder, Setting(rows, max_length=32, precision="fp32"), 3e-3, 4)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def lm_rows(once: Callable[..., Path]) -> Path:
    """96 / 32 / 32 plain texts."""
    return once("lm-rows", lm.texts_folder) / "rows"


@pytest.fixture(scope="session")
def lm_tuned(once: Callable[..., Path], lm_rows: Path) -> Callable[[str], Path]:
    """The tuned folder of `llama` (grouped queries, gated blocks) or `gpt2` (transposed layers, fused attention)."""
    shared = ROOT.parent / "shared" / "data"
    return cache(lambda kind: once(f"lm-{kind}", lambda home: lm.tuned(kind, lm_rows, shared, home / "model")) / "model")
