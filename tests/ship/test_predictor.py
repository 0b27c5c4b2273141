"""Texts of any kind, in any number, come back in their order."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from trimtune.errors import TrimtuneError
from trimtune.ship import bundle as bundles
from trimtune.ship import stream
from trimtune.ship.predictor import Predictor, softmax

pytestmark = pytest.mark.slow
TEXTS = ["my invoice is wrong", "", "   ", "can't sign in since this morning " * 60, "日本語のメッセージ", "🙂", "a\nb", "x"]


@pytest.fixture(scope="module")
def predictor(bundle: Path) -> Predictor:
    return bundles.load(bundle)


def test_order_and_neighbors_change_nothing(predictor: Predictor) -> None:
    together = predictor(TEXTS)
    alone = [predictor([text])[0] for text in TEXTS]
    assert [one.label for one in together] == [one.label for one in alone]
    assert np.allclose([one.probability for one in together], [one.probability for one in alone], atol=1e-5)
    assert [one.label for one in predictor(TEXTS[::-1])] == [one.label for one in together[::-1]]


def test_probabilities_are_those_of_all_labels(predictor: Predictor) -> None:
    for one in predictor(TEXTS):
        assert tuple(one.probabilities) == predictor.labels
        assert sum(one.probabilities.values()) == pytest.approx(1)
        assert one.probability == max(one.probabilities.values()) == one.probabilities[one.label]


def test_a_generator_of_more_than_a_chunk(predictor: Predictor) -> None:
    answers = predictor("invoice" if index % 2 else "password" for index in range(1030))
    assert len(answers) == 1030
    assert {one.label for one in answers[::2]} == {answers[0].label}


def test_nothing_gives_nothing(predictor: Predictor) -> None:
    assert predictor([]) == []


@pytest.mark.parametrize(("texts", "says"), [("one bare text", "bare text"), (["fine", None], "Text 1 is no text but NoneType"),
                                             ([3.5], "Text 0 is no text but float")])
def test_what_is_no_text_is_refused(predictor: Predictor, texts: object, says: str) -> None:
    with pytest.raises(TrimtuneError, match=says):
        predictor(texts)  # type: ignore[arg-type]


def test_softmax_stands_large_logits() -> None:
    assert np.allclose(softmax(np.array([[1e4, 1e4], [-1e4, 1e4]], np.float32)), [[0.5, 0.5], [0, 1]])


def test_a_file_keeps_its_columns(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "mails.csv"
    path.write_text('id,body,label\n7,"refund, please",old\n8,where is my invoice,old\n', encoding="utf-8")
    source, out = stream.from_file(path, "body", "text"), io.StringIO()
    assert stream.write(stream.answered(predictor, source), source.columns, "csv", out) == 2
    rows = list(csv.DictReader(io.StringIO(out.getvalue())))
    assert [row["id"] for row in rows] == ["7", "8"]
    assert rows[0]["body"] == "refund, please"
    assert rows[0]["label"] == "old"
    assert rows[1]["predicted_label"] == predictor(["where is my invoice"])[0].label


def test_json_lines_in_and_out(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "mails.jsonl"
    path.write_text('{"text": "refund please", "id": 1}\n{"text": "", "more": [1]}\n')
    source, out = stream.from_file(path, None, "text"), io.StringIO()
    stream.write(stream.answered(predictor, source), source.columns, "jsonl", out)
    rows = [json.loads(line) for line in out.getvalue().splitlines()]
    assert rows[0]["id"] == 1
    assert rows[1]["more"] == [1]
    assert sum(rows[1]["probabilities"].values()) == pytest.approx(1)


def test_a_missing_text_is_named_by_its_line(predictor: Predictor, tmp_path: Path) -> None:
    path = tmp_path / "mails.jsonl"
    path.write_text('{"text": "fine"}\n{"text": null}\n')
    source = stream.from_file(path, None, "text")
    with pytest.raises(TrimtuneError, match="line 2"):
        list(stream.answered(predictor, source).rows)
