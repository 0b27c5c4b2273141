"""The bundled help desk: written by hand, so it must look like it."""

from __future__ import annotations

import csv
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev

import pytest

import trimtune

FOLDER = Path(trimtune.__file__).parent / "data" / "helpdesk"
SPLITS = ("train", "validation", "test")
LABELS = {"login_problem", "team_access", "billing_question", "refund_request", "cancel_subscription", "change_plan",
          "bug_report", "service_down", "integration_help", "how_to", "feature_request", "data_request"}


def read(split: str) -> list[tuple[str, str]]:
    with (FOLDER / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


ROWS = {split: read(split) for split in SPLITS}
ALL = [row for split in SPLITS for row in ROWS[split]]
TEXTS = [text for text, _ in ALL]


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9']+", text.lower())


def similar(texts: list[str], least: float) -> list[tuple[float, str, str]]:
    """Every pair whose sets of character 5-grams have a Jaccard similarity of at least `least`; exact, over all pairs."""
    import numpy as np
    from scipy.sparse import csr_matrix, triu

    grams = [{text[at:at + 5] for at in range(max(1, len(text) - 4))} for text in (" ".join(words(text)) for text in texts)]
    places = {gram: place for place, gram in enumerate(sorted(set().union(*grams)))}
    counts = np.array([len(found) for found in grams])
    columns = [places[gram] for found in grams for gram in found]
    matrix = csr_matrix((np.ones(len(columns), np.int32), columns, [0, *counts.cumsum()]), shape=(len(grams), len(places)))
    shared = triu(matrix @ matrix.T, k=1).tocoo()
    jaccard = shared.data / (counts[shared.row] + counts[shared.col] - shared.data)
    return [(float(jaccard[i]), texts[shared.row[i]], texts[shared.col[i]]) for i in np.flatnonzero(jaccard >= least)]


def test_there_are_enough_rows_of_every_label() -> None:
    assert len(ALL) >= 1600
    assert {label for _, label in ALL} == LABELS
    for split in SPLITS:
        counts = Counter(label for _, label in ROWS[split])
        assert counts.keys() == LABELS
        assert max(counts.values()) <= 1.1 * min(counts.values()), counts
    assert len(ROWS["train"]) > len(ROWS["test"]) > len(ROWS["validation"]) >= 20 * len(LABELS)


def test_every_row_is_one_clean_line() -> None:
    for text, _ in ALL:
        assert text == text.strip()
        assert not re.search(r"[\n\r\t\x00-\x1f\ufffd]", text), text
        assert not (text.startswith('"') and text.endswith('"')), text


def test_no_two_rows_are_near_duplicates_within_or_across_splits() -> None:
    assert len({" ".join(words(text)) for text in TEXTS}) == len(TEXTS)
    assert similar(TEXTS, 0.5) == []


def test_the_near_duplicate_check_sees_one() -> None:
    first = "my invoice for march is wrong again, please look"
    pairs = similar([first, "where is the export button", "My invoice for march is wrong again please, look!!"], 0.5)
    assert [(one, score) for score, one, _ in pairs] == [(first, 1.0)]
    grams = [{text[i:i + 5] for i in range(len(text) - 4)} for text in ("abcdefgh", "abcdefgz")]
    assert similar(["abcdefgh", "abcdefgz"], 0.1)[0][0] == pytest.approx(len(grams[0] & grams[1]) / len(grams[0] | grams[1]))


def test_nothing_looks_like_a_template() -> None:
    for length, most in ((4, len(TEXTS) // 200), (5, 3)):  # four words may be an idiom such as "is it possible to"; five may not
        openings = Counter(" ".join(words(text)[:length]) for text in TEXTS if len(words(text)) >= length)
        assert {opening: n for opening, n in openings.items() if n > most} == {}
    inner = Counter(" ".join(found[at:at + 6]) for found in map(words, TEXTS) for at in range(len(found) - 5))
    assert {phrase: n for phrase, n in inner.items() if n > 5} == {}, "one phrase of six words stands in many rows"


def test_lengths_are_spread_as_in_real_mail() -> None:
    lengths = sorted(len(text.split()) for text in TEXTS)
    assert lengths[0] >= 2
    assert lengths[-1] <= 70
    assert 12 <= mean(lengths) <= 22
    assert pstdev(lengths) >= 5
    assert lengths[len(lengths) // 10] <= 8
    assert lengths[len(lengths) * 9 // 10] >= 18
    for label in LABELS:
        assert 0.6 <= mean(len(text.split()) for text, own in ALL if own == label) / mean(lengths) <= 1.6, label


def test_no_single_word_gives_a_label_away() -> None:
    everywhere = Counter(word for text in TEXTS for word in set(words(text)))
    for label in LABELS:
        own = [set(words(text)) for text, its in ALL if its == label]
        for word, n in Counter(word for found in own for word in found).items():
            assert n < 0.5 * len(own) or n < 0.8 * everywhere[word], f"'{word}' is in {n} of {len(own)} rows of {label}"


@pytest.mark.parametrize("split", SPLITS)
def test_labels_are_not_in_order(split: str) -> None:
    labels = [label for _, label in ROWS[split]]
    same = sum(one == following for one, following in pairwise(labels))
    assert same < 0.2 * len(labels), "the rows of a split must be shuffled"
