"""What trims left in other shapes and with other tokens goes through a whole run, and its bundle answers as measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trimtune import flow, load
from trimtune.errors import TrimtuneError
from trimtune.results import Result
from trimtune.ship.bundle import ship
from trimtune.study import data, read

TRIMS = [[{"prune_vocabulary": {"keep": 500}}],
         [{"prune_vocabulary": {"keep": 500}}, {"low_rank": {"ratio": 0.6, "epochs": 0, "rows": 96}}, "int8"]]


@pytest.fixture(scope="module")
def trimmed_run(helpdesk_files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    """A run folder and its result, of two candidates: fewer tokens; and then thin layers in int8."""
    home = tmp_path_factory.mktemp("trimmed")
    study = {"name": "trimmed", "model": "minilm", "data": helpdesk_files,
             "tune": ["head"], "trim": TRIMS, "skip": ["head@*"], "engine": [{"torch_eager": {"precision": "fp32"}}],
             "fit": {"epochs": 2, "max_length": 32}, "budget": {"trials": 1, "seeds": 1, "minutes": 2}}
    return home / "runs" / "trimmed", flow.run(read.resolve(study, "study", home), home / "runs")


@pytest.mark.slow
def test_each_ships_and_answers_as_measured(trimmed_run: tuple[Path, Result], helpdesk_rows: Path, tmp_path: Path) -> None:
    folder, result = trimmed_run
    assert [row.status for row in result.rows] == ["measured"] * 2, [row.cause for row in result.rows]
    rows, sizes = data.load(helpdesk_rows), []
    for at, row in enumerate(result.rows):
        ship(folder, tmp_path / str(at), row.name)
        found: Any = load(tmp_path / str(at), n_threads=1)
        answers = [result.data.labels.index(one.label) for one in found(rows.test.texts)]
        same = sum(map(int.__eq__, answers, result.predictions[row.name]))
        assert same >= (len(answers) if at == 0 else len(answers) - 1)
        sizes.append(row.readings["size_mb"].value)
        assert (tmp_path / str(at) / "model" / "tokenizer.json").stat().st_size < 300_000
    assert sizes[0] < 65, "of 92 MB in float32"
    assert sizes[1] < 0.3 * sizes[0]


@pytest.mark.slow
def test_a_plain_folder_has_the_smaller_tokenizer_and_thin_layers_are_refused(trimmed_run: tuple[Path, Result],
                                                                              tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, result = trimmed_run
    ship(folder, tmp_path / "plain", result.rows[0].name, format_="merged")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "plain")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "plain")) == model.config.vocab_size < 10_000
    with pytest.raises(TrimtuneError, match="leaves layers in shapes that no config"):
        ship(folder, tmp_path / "thin", result.rows[1].name, format_="merged")
    assert not (tmp_path / "thin").exists()
