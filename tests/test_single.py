"""What `trimtune tune` leaves, used as a stranger would who has transformers and peft alone."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

import trimtune
from trimtune import api, single
from trimtune.cli import main
from trimtune.errors import StepFailed
from trimtune.records import Study, Use

TEXTS = ["a text", "another"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    for split in ("train", "validation", "test"):
        with (Path(trimtune.__file__).parent / "data" / "helpdesk" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            found = [row for row in csv.DictReader(file) if row["label"] in ("login_problem", "refund_request")][:24]
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["text", "label"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(found)
    return folder


def test_class_weights_reach_the_fit(rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def fit(use: Use, study: Study, *_: object) -> None:
        asked.append(study.fit.class_weights)
        raise StepFailed("seen")

    monkeypatch.setattr(single, "_fit", fit)
    for more in ([], ["--class-weights", "balanced"]):
        assert main(["tune", str(rows / "train.csv"), "-o", str(tmp_path / "fitted"), *more]) == 1
    assert asked == ["none", "balanced"]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_folder_loads_as_its_readme_says(method: str, rows: Path, tmp_path: Path) -> None:
    from trimtune.tasks import text_classification as task

    api.tune(rows / "train.csv", validation=rows / "validation.csv", test=rows / "test.csv", out=tmp_path / "fitted",
             method=method, epochs=1, max_length=32)
    told = (tmp_path / "fitted" / "README.md").read_text(encoding="utf-8")
    code = told.split("```python\n")[1].split("```")[0]
    done = subprocess.run([sys.executable, "-c", f"{code}\nimport json\nprint(json.dumps(model(**inputs).logits.tolist()))"],
                          cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    import torch

    wanted = task.load_model(tmp_path / "fitted")(**{name: torch.from_numpy(values) for name, values in task.encode(
        task.load_tokenizer(tmp_path / "fitted"), TEXTS, 32).items()}).logits
    torch.testing.assert_close(torch.tensor(json.loads(done.stdout.splitlines()[-1])), wanted, atol=1e-4, rtol=0)
    assert json.loads((tmp_path / "fitted" / "metrics.json").read_text(encoding="utf-8"))["method"] == method
    assert all(path.stat().st_mode & 0o044 for path in (tmp_path / "fitted").rglob("*") if path.is_file())
