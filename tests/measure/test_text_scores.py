"""BLEU and ROUGE-L against the libraries that define them, and against figures counted by hand."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtune.measure import _text_scores as scores

ANSWERS = ["the cat sat on the mat .", "There is a pub, The Mill, near Café Rouge.", "no", "", "Aromi & Co. is cheap: £20-25!"]
REFERENCES = [["The cat sat on the mat.", "A cat is on a mat."], ["The Mill is a pub near Café Rouge."],
              ["no", "not at all", "never"], ["something"], ["Aromi & Co. costs £20-25.", "Aromi is cheap"]]


def corpus_bleu(answers: list[str], references: list[list[str]]) -> float:
    from sacrebleu import corpus_bleu

    most = max(map(len, references))
    streams = [[several[at] if at < len(several) else None for several in references] for at in range(most)]
    return corpus_bleu(answers, streams, use_effective_order=True).score


def ours(answers: list[str], references: list[list[str]]) -> float:
    statistics = [scores.bleu_statistics(*pair) for pair in zip(answers, references, strict=True)]
    return float(scores.bleu(np.array(statistics, dtype=float).sum(axis=0)[None])[0])


def test_bleu_is_sacrebleus() -> None:
    assert ours(ANSWERS, REFERENCES) == pytest.approx(corpus_bleu(ANSWERS, REFERENCES), abs=1e-9)
    for one in range(5):
        assert ours(ANSWERS[one:one + 1], REFERENCES[one:one + 1]) == pytest.approx(
            corpus_bleu(ANSWERS[one:one + 1], REFERENCES[one:one + 1]), abs=1e-9)


WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "."]), max_size=9).map(" ".join)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(WORDS, st.lists(WORDS.filter(bool), min_size=1, max_size=3)), min_size=1, max_size=6))
def test_bleu_is_sacrebleus_for_anything(pairs: list[tuple[str, list[str]]]) -> None:
    answers, references = [answer for answer, _ in pairs], [several for _, several in pairs]
    assert ours(answers, references) == pytest.approx(corpus_bleu(answers, references), abs=1e-9)


def test_bleu_of_answers_of_one_word_is_the_share_that_is_right() -> None:
    wanted = [["cash"], ["card"], ["cash"], ["loan"]]
    assert ours(["cash", "card", "loan", "loan"], wanted) == pytest.approx(75)
    assert ours(["loan", "loan", "loan", "cash"], wanted) == 0


def test_bleu_counted_by_hand() -> None:
    """Four words of five are right, in the runs `the cat` and `on mat`: 4/5, 2/4, 0/3 (halved: 1/2), 0/2 (a quarter)."""
    answer, references = "the cat lay on mat", ["the cat sat on mat", "on a mat"]
    assert scores.bleu_statistics(answer, references) == [5, 5, 4, 2, 0, 0, 5, 4, 3, 2]
    assert ours([answer], [references]) == pytest.approx(100 * (4 / 5 * 2 / 4 * 0.5 / 3 * 0.25 / 2)**0.25)
    assert ours(["the cat sat on"], [["the cat sat on a mat"]]) == pytest.approx(100 * math.exp(1 - 6 / 4))
    assert ours(["dog"], [["the cat"]]) == 0
    assert ours(["the cat sat"], [["the cat sat"]]) == pytest.approx(100), "three words have no run of four"


def test_rouge_l_is_the_librarys() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"])
    for answer, references in zip(ANSWERS, REFERENCES, strict=True):
        plain = [reference.replace("é", "e") for reference in references]
        expected = max(scorer.score(reference, answer.replace("é", "e"))["rougeL"].fmeasure for reference in plain)
        assert scores.rouge_l(answer.replace("é", "e"), plain) == pytest.approx(expected)


@settings(deadline=None, max_examples=60)
@given(WORDS, st.lists(WORDS, min_size=1, max_size=3))
def test_rouge_l_is_the_librarys_for_anything(answer: str, references: list[str]) -> None:
    from rouge_score.rouge_scorer import RougeScorer

    expected = RougeScorer(["rougeL"]).score_multi(references, answer)["rougeL"].fmeasure
    assert scores.rouge_l(answer, references) == pytest.approx(expected)


def test_scoring_an_answer_does_not_load_nltk() -> None:
    code = "import sys; from trimtune.measure import answers; answers.scored(['a b c'], [['a c']]); print('nltk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_rouge_l_counted_by_hand() -> None:
    precision, recall = 4 / 5, 4 / 6  # the cat on mat
    found = scores.rouge_l("the cat lay on mat", ["a dog", "the cat sat on the mat"])
    assert found == pytest.approx(2 * precision * recall / (precision + recall))
    assert scores.rouge_l("", ["a dog"]) == 0


def test_words_of_other_scripts_count() -> None:
    assert scores.rouge_l("Кошка сидит.", ["кошка спит"]) == pytest.approx(0.5)
    assert scores.rouge_l("猫在睡觉", ["猫在吃饭"]) == pytest.approx(0.5)
    assert scores.rouge_l("हिंदी", ["हिंदू"]) == 0
    assert (scores.bleu_tokens(["a cat"]), scores.bleu_tokens(["a cat", "猫在睡觉"])) == ("13a", "zh")
    assert scores.bleu_statistics("猫在睡觉", ["猫在吃饭"], "zh")[:4] == [4, 4, 2, 1]


@pytest.mark.parametrize(("answer", "reference", "wanted"), [
    ("Paris.", "paris", True), ("  New\n York ", "new york", True), ("“Yes!”", "yes", True), ("ﬁne", "fine", True),
    ("3.5", "35", False), ("-3", "3", False), ("pages 3-4", "pages 3 4", True), ("C++", "C", False), (":)", ":(", False),
    ("don't", "don’t", True), ("", "yes", False), ("10,000", "10,000.", True)])
def test_the_same_but_for_case_punctuation_and_spaces(answer: str, reference: str, wanted: bool) -> None:
    assert scores.same(answer, ["something else", reference]) is wanted


@pytest.mark.parametrize(("text", "number"), [
    ("so 3 + 4 = 7.", 7), ("#### 1,200", 1200), ("it is −5", -5), ("from 20-25", 25), ("3.50 dollars", 3.5), ("none", None),
    ("1,2", 2), ("1,234,567.5 km", 1234567.5)])
def test_the_last_number(text: str, number: float | None) -> None:
    assert scores.number_of(text) == number


def test_numbers_agree_only_where_every_reference_has_one() -> None:
    assert scores.same_number("It is 12.0", ["12", "a dozen or 13"]) is True
    assert scores.same_number("none", ["12"]) is False
    assert scores.same_number("12", ["12", "a dozen"]) is None
