"""General text in pieces: the built-in prose, a text of one's own, a table."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from tests.study.faults import fault

from trimtune.study import general
from trimtune.study.sources import bundled


def test_the_built_in_sample_is_prose_in_paragraphs() -> None:
    pieces = general.read(None)
    assert 25 <= len(pieces) <= 60
    assert 1500 <= sum(len(piece.split()) for piece in pieces) <= 2500
    assert pieces[0].startswith("When in the Course of human events")
    assert all(piece == piece.strip() and len(piece) <= 1000 for piece in pieces)
    assert not any(name.startswith("_") for name in bundled()), "it is no data set to tune on"


def test_paragraphs_of_a_text_of_ones_own_are_cut_between_words(tmp_path: Path) -> None:
    path = tmp_path / "own.txt"
    path.write_bytes(("One two.\r\n\r\nThree\r\nfour.\r\n \r\n\r\n" + "word " * 500 + "\r\n\r\n" + "字" * 2300).encode())
    first, second, *rest = general.read(path)
    assert (first, second) == ("One two.", "Three\nfour.")
    assert [len(piece) for piece in rest[-3:]] == [1000, 1000, 300], "a script without spaces is cut anywhere"
    assert " ".join(rest[:-3]).split() == ["word"] * 500
    assert all(len(piece) <= 1000 for piece in rest)


def test_of_a_long_text_pieces_are_taken_evenly(tmp_path: Path) -> None:
    path = tmp_path / "long.md"
    path.write_text("\n\n".join(f"Paragraph {number}: " + "so it goes " * 40 for number in range(1000)))
    pieces = general.read(path)
    assert 35_000 < sum(map(len, pieces)) <= 41_000
    numbers = [int(piece.split()[1].rstrip(":")) for piece in pieces]
    assert numbers[0] == 0
    assert numbers[-1] > 950
    assert max(after - before for before, after in pairwise(numbers)) <= 2 * 1000 / len(pieces)


def test_tables_of_any_kind_of_row_will_do(tmp_path: Path) -> None:
    (tmp_path / "texts.csv").write_text("text\nA cat sat.\nA dog ran.\n")
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "Who?", "completion": "Ann."}\n')
    assert general.read(tmp_path / "texts.csv") == ["A cat sat.", "A dog ran."]
    assert general.read(tmp_path / "pairs.jsonl") == ["Who?\nAnn."]


def test_a_text_without_words_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.txt").write_text("a\n\nb\n")
    fault(lambda: general.read(tmp_path / "no.txt"), "data.general", "no.txt", "no words")
