"""The paired comparison by BLEU, and what is said where a rule without likelihoods isn't beaten."""

from __future__ import annotations

import numpy as np
import pytest
from tests.choose.candidates import row

from trimtune.choose.bleu import texts
from trimtune.choose.choose import choose
from trimtune.measure import _text_scores
from trimtune.results import Baseline, Choice

WANTED = [f"there is {one} at the {other} in the city" for one in ("a pub", "a cafe", "food", "no inn") for other in "abcdefghij"]


def said(wrong: int) -> list[list[int]]:
    """BLEU's statistics of the wanted sentences, of which the first `wrong` have another ending."""
    answers = [text.replace("in the city", "by a river bank") if at < wrong else text for at, text in enumerate(WANTED)]
    return [_text_scores.bleu_statistics(answer, [text]) for answer, text in zip(answers, WANTED, strict=True)]


def test_scores_are_bleu_and_a_clear_lead_is_told_from_a_small_one() -> None:
    found = texts({"few": said(5), "more": said(7), "most": said(30), "fewer asked": said(5)[:9]}, "few")
    assert found.names == ("few", "more", "most"), "answers to other prompts can't be paired"
    expected = _text_scores.bleu(np.array(said(5), dtype=float).sum(axis=0)[None])[0]
    assert found.score("few") == pytest.approx(expected)
    assert found.better("few", "most")
    assert not found.better("few", "few")
    clear, same = found.difference("few", "most"), found.difference("few", "few")
    assert 0 < clear.low < clear.value < clear.high
    assert clear.value == pytest.approx(found.score("few") - found.score("most"))
    assert (same.value, same.low, same.high, same.tied) == (0, 0, 0, True)


def test_the_interval_of_a_difference_is_that_of_pairs() -> None:
    one, other = said(20), said(22)
    paired = texts({"a": one, "b": other}, "a").difference("a", "b")
    alone = np.ptp(np.percentile(texts({"a": one}, "a").drawn_KR[0], [2.5, 97.5]))
    assert paired.high - paired.low < 0.5 * alone


RULE = Baseline(name="nearest_answer", title="Nearest answer", by_answer=tuple(map(tuple, said(3))))
UNTUNED = Baseline(name="untuned", title="Untuned model", by_answer=tuple(map(tuple, said(40))))


def chosen(nll: float, wrong: int) -> Choice:
    """Of one candidate, 20 nats per prompt, beside an untuned model of about `nll` and a rule that says three answers wrong."""
    draw = np.random.default_rng(0)
    predictions = {"full@torch_eager": [(20 + draw.normal(), 10) for _ in range(40)]}
    untuned = UNTUNED.model_copy(update={"predictions": tuple((nll + draw.normal(), 10) for _ in range(40))})
    return choose([row("full", engine="torch_eager")], predictions, (), (), "quality", (RULE, untuned), "perplexity",
                  {"full@torch_eager": said(wrong)})


def test_where_tuning_beats_both_nothing_is_said() -> None:
    poor = RULE.model_copy(update={"by_answer": tuple(map(tuple, said(30)))})
    untuned = UNTUNED.model_copy(update={"predictions": tuple((30.0 + at % 2, 10) for at in range(40))})
    likely = {"full@torch_eager": [(20.0 + at % 3, 10) for at in range(40)]}
    found = choose([row("full", engine="torch_eager")], likely, (), (), "quality", (poor, untuned), "perplexity",
                   {"full@torch_eager": said(0)})
    assert found.unbeaten_baselines == ()
    assert found.sentence.startswith("Take full@torch_eager")


def test_a_rule_that_says_as_good_answers_is_the_first_sentence() -> None:
    found = chosen(nll=30, wrong=3)
    assert found.unbeaten_baselines == ("nearest_answer",)
    assert found.sentence.startswith("No gain from tuning is shown here: Nearest answer ties with full@torch_eager, BLEU ")
    assert "on 40 test prompts (+0.0 points, 95% interval +0.0 to +0.0)" in found.sentence
    worse = chosen(nll=30, wrong=40)
    assert worse.sentence.startswith("Tuning loses here: Nearest answer beats full@torch_eager, BLEU ")


def test_an_untuned_model_that_is_as_good_comes_first() -> None:
    found = chosen(nll=20, wrong=3)
    assert found.unbeaten_baselines == ("untuned", "nearest_answer")
    assert found.sentence.startswith("No gain from tuning is shown here: Untuned model ties with full@torch_eager, perplexity 7.")
    assert "on 40 test prompts (" in found.sentence
    lost = chosen(nll=10, wrong=3)
    assert lost.sentence.startswith("Tuning loses here: Untuned model beats full@torch_eager, perplexity 2.")
    assert "(-6" in lost.sentence, "a perplexity that is 63% lower"


def test_a_result_from_before_answers_were_kept_is_chosen_from_all_the_same() -> None:
    predictions = {"full@torch_eager": [(20.0 + at % 3, 10) for at in range(40)]}
    found = choose([row("full", engine="torch_eager")], predictions, (), (), "quality", (RULE,), "perplexity")
    assert found.unbeaten_baselines == ()
