"""What several trims are tried on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

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
