"""Units that go in stages: each stage goes on with what the one before left, and the last has as many units as one stage has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.engines.small_classifier import small_classifier

from trimtune import parts
from trimtune.tasks import text_classification as task
from trimtune.tune.recovery import Setting

ENCODER = "bert.encoder.layer.1"
CUT = {"prune_ffn": (f"{ENCODER}.intermediate.dense.weight", 0, (80, 48)),
       "prune_heads": (f"{ENCODER}.attention.self.value.weight", 0, (32, 32)),
       "prune_width": ("bert.embeddings.word_embeddings.weight", 1, (32, 32))}
"""a tensor that loses rows (0) or columns (1), and how many are left after each of two stages on the way to a half or more"""
RATIO = {"prune_ffn": 0.7, "prune_heads": 0.5, "prune_width": 0.5}


@pytest.mark.slow
@pytest.mark.parametrize("trim", list(CUT))
def test_each_stage_cuts_what_the_one_before_left(trim: str, small: Path, rows: Path, tmp_path: Path) -> None:
    part, setting = parts.load("trim", trim), Setting(rows, max_length=32)
    name, axis, counts = CUT[trim]
    facts = part.run(tmp_path, small, {"ratio": RATIO[trim], "steps": 2, "epochs": 0, "rows": 16}, setting)
    assert len(facts["stages"]) == 2
    assert facts["stages"][1]["before"] == facts["stages"][0]["after"]
    left, before = load_file(tmp_path / "model.safetensors")[name], load_file(small / "model.safetensors")[name]
    assert left.shape[axis] == counts[1]
    units, parents = (tensor if axis == 0 else tensor.T for tensor in (left, before))
    assert all((parents == unit).all(1).any() for unit in units), "each is one of the parent's, as it was"
    assert 0 < facts["importance_kept"] <= min(stage["importance_kept"] for stage in facts["stages"]) + 1e-4


@pytest.mark.slow
def test_the_fit_of_a_stage_is_where_the_next_begins(rows: Path, tmp_path: Path) -> None:
    """Beside a prompt, which is cut as well."""
    (tmp_path / "source").mkdir()
    source = small_classifier(tmp_path / "source", "prompt")
    config = {"ratio": 0.65, "steps": 2, "epochs": 1, "rows": 16}
    facts = parts.load("trim", "prune_width").run(tmp_path / "cut", source, config, Setting(rows, max_length=16))
    assert [(stage["before"], stage["after"]) for stage in facts["stages"]] == [(64, 32), (32, 16)]
    assert [stage["recovery"]["epochs_run"] for stage in facts["stages"]] == [1, 1]
    model = task.load_model(tmp_path / "cut")
    assert model.prompt_encoder["default"].embedding.weight.shape == (20, 16)  # type: ignore[index, union-attr]
    ids = torch.randint(5, 99, (2, 7))
    with torch.inference_mode():
        assert model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.isfinite().all()
