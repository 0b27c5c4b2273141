"""What a study gets that names no parts, by its task."""

import pytest

from trimtune.study import read


@pytest.mark.parametrize(("task", "tune", "trim"), [
    ("text-classification", ["head", "full", "lora", "prefix", "prompt"], [[], ["int8"]]),
    ("causal-lm", ["full", "lora", "prefix", "prompt"], [[], ["int8"]])])
def test_a_study_without_parts_takes_those_that_can_do_its_task(task, tune, trim, tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(f"name: s\nmodel: a/b\ntask: {task}\ndata: {{train: x.csv}}\n", encoding="utf-8")
    (tmp_path / "x.csv").write_text("a,b\n", encoding="utf-8")
    study = read.read(path)
    assert [use.name for use in study.tune] == tune
    assert [[use.name for use in chain] for chain in study.trim] == trim
    assert "torch_eager" in [use.name for use in study.engine]
