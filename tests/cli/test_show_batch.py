"""`show-batch` on the terminal's words: what is learned apart from what isn't, and the same refusals as a run's."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtune.cli import main


@pytest.fixture
def study(shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of a few rows for the smallest real Llama."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    rows = "".join(f'"name[The Mill {n}], food[Fast]","The Mill {n} serves fast food."\n' for n in range(8))
    Path("train.csv").write_text(f"mr,ref\n{rows}", encoding="utf-8")
    made = Path("study.yaml")
    made.write_text(f"name: mills\nmodel: {shared_data / 'models' / 'stories260K'}\ntask: causal-lm\ndata: train.csv\n"
                    "fit: {max_length: 96}\n", encoding="utf-8")
    return made


def test_the_rows_are_shown_as_the_model_sees_them(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show-batch", str(study), "--rows", "1"]) == 0
    shown = capsys.readouterr().out
    assert "pairs: prompt from column 'mr', completion from column 'ref'" in shown
    assert "no chat template: prompt, line break, completion, </s>" in shown
    assert "padding is written as </s>, and left out by its place" in shown
    row = shown.split("\nrow ")[1]
    assert row.count("«") == row.count("»") == 1
    assert row.split("«")[0].split("\n", 1)[1].startswith("<s> name[The Mill ")
    assert "serves fast food.</s>»" in row


@pytest.mark.parametrize(("change", "said"), [
    (("max_length: 96", "max_length: 8"), ("none of", "fit.max_length")),
    (("task: causal-lm", "task: text-classification"), ("has no batches to show", "trimtune plan")),
    (("data: train.csv", "data: {train: train.csv, template: no.jinja}"), ("data.template", "no such file")),
    (("data: train.csv", "data: {train: train.csv, loss: some}"), ("'some' is not taken", "answers, all")),
])
def test_what_a_run_would_refuse_is_refused(study: Path, change: tuple[str, str], said: tuple[str, ...],
                                            capsys: pytest.CaptureFixture[str]) -> None:
    study.write_text(study.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    assert main(["show-batch", str(study)]) == 2
    told = capsys.readouterr().err
    for word in said:
        assert word in told


def test_the_first_token_of_a_text_is_not_called_learned(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.csv").write_text("text\n" + "".join(f"The Mill {n} serves fast food.\n" for n in range(8)), encoding="utf-8")
    assert main(["show-batch", str(study), "--rows", "1"]) == 0
    row = capsys.readouterr().out.split("\nrow ")[1]
    told = row.split(":")[1].split("\n")[0]
    tokens, learned = (int(part.split()[0]) for part in told.split(","))
    assert learned == tokens - 1
    assert row.split("\n")[1].startswith("<s>«")
