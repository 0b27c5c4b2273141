"""A base whose checkpoint lacks weights beside the head gets them once, so that every step finds the same."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from trimtune.errors import TrimtuneError
from trimtune.records import Study
from trimtune.store import Store, link_tree
from trimtune.study.model import locate
from trimtune.tasks import text_classification as task
from trimtune.tasks._base import base_of


def test_a_missing_pooler_is_drawn_once_and_the_head_is_left_to_the_fits(tmp_path):
    link_tree(locate("minilm"), tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    save_file({name: value for name, value in weights.items() if "pooler" not in name}, tmp_path / "model.safetensors",
              metadata={"format": "pt"})
    task.describe_base(tmp_path, ["a", "b", "c"])
    assert task.complete(tmp_path) == ["bert.pooler.dense.bias", "bert.pooler.dense.weight"]
    assert task.complete(tmp_path) == []
    assert not any(name.startswith("classifier") for name in load_file(tmp_path / "model.safetensors"))
    loaded = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        loaded.append(task.load_base(tmp_path))
    first, second = loaded
    assert torch.equal(first.bert.pooler.dense.weight, second.bert.pooler.dense.weight)
    assert not torch.equal(first.classifier.weight, second.classifier.weight)


def test_a_whole_checkpoint_stays_the_file_it_was(tmp_path):
    link_tree(locate("minilm"), tmp_path)
    task.describe_base(tmp_path, ["a", "b"])
    before = (tmp_path / "model.safetensors").stat().st_ino
    assert task.complete(tmp_path) == []
    assert (tmp_path / "model.safetensors").stat().st_ino == before


def test_a_head_for_other_labels_is_left_out_and_the_rest_is_kept(tmp_path):
    whole, folder = tmp_path / "whole", tmp_path / "base"
    link_tree(locate("minilm"), tmp_path / "plain")
    task.describe_base(tmp_path / "plain", ["negative", "positive"])
    task.load_base(tmp_path / "plain").save_pretrained(whole)
    link_tree(whole, folder)
    task.describe_base(folder, ["a", "b", "c"])
    assert task.complete(folder) == []
    before, after = (load_file(path / "model.safetensors") for path in (whole, folder))
    assert before.keys() - after.keys() == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    assert task.load_base(folder).classifier.weight.shape == (3, 384)


def test_a_model_that_a_trim_cut_is_refused(tmp_path):
    folder = tmp_path / "cut"
    link_tree(locate("minilm"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "trimtune_shapes": True}))
    study = Study(name="again", model=str(folder), data={"train": "helpdesk"}, task="text_classification", tune=(), trim=(),
                  engine=())
    with pytest.raises(TrimtuneError, match="is what a trim left"):
        base_of(study, ["a", "b"], Store(tmp_path / "store"))
