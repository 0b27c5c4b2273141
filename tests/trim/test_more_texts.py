"""Changed copies of rows: near the row, the same ones for the same seed."""

from __future__ import annotations

from trimtune.trim import _more_texts

TEXT = "the export to our CRM fails since the last update any idea"


def test_a_copy_differs_in_a_few_words_only() -> None:
    words = TEXT.split()
    kinds = set()
    for copy in _more_texts.copies([TEXT], 60, "[MASK]", 0):
        found = copy.split()
        assert copy != TEXT
        if "[MASK]" in found:
            kinds.add("masked")
            assert sum(one != other for one, other in zip(found, words, strict=True)) == 2
        elif len(found) < len(words):
            kinds.add("dropped")
            assert len(found) == len(words) - 2
        else:
            kinds.add("swapped")
            assert sorted(found) == sorted(words)
    assert kinds == {"masked", "dropped", "swapped"}


def test_the_seed_decides_and_a_lone_word_has_no_copy() -> None:
    texts = [TEXT, "help", "log in"]
    first = _more_texts.copies(texts, 2, "[MASK]", 1)
    assert first == _more_texts.copies(texts, 2, "[MASK]", 1)
    assert first != _more_texts.copies(texts, 2, "[MASK]", 2)
    assert len(first) == 4
    assert not any("[MASK]" in copy for copy in _more_texts.copies(texts, 50, None, 1))
