from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from trimtune.measure import answers
from trimtune.measure._lm_subject import Prompt
from trimtune.records import AnswerFormat

SAID = ["The Mill is cheap.", "no", "They had 4 eggs", "THE MILL"]
WANTED = [["The Mill is cheap.", "It is cheap, The Mill."], ["yes"], ["They had 5 eggs."], ["the mill!", "a mill"]]


def summarized(said: list[str], wanted: list[list[str]], **more: Any) -> Any:
    return answers.summarize([{**answers.scored(said, wanted), "ended": [True] * len(said), "too_long": 0, **more}],
                             answers.Config())


def test_readings_of_answers_with_several_references() -> None:
    from sacrebleu import corpus_bleu

    found = summarized(SAID, WANTED, ended=[True, True, True, False], too_long=2)
    assert found["exact_match"].value == 0.5
    assert found["ended"].value == 0.75
    assert found["rouge_l"].value == pytest.approx((1 + 0 + 3 / 4 + 1) / 4)
    streams = [[several[0] for several in WANTED], [several[1] if len(several) > 1 else None for several in WANTED]]
    assert found["bleu"].value == pytest.approx(corpus_bleu(SAID, streams).score)
    assert found["bleu"].note.startswith("sacrebleu eff:yes|tok:13a|smooth:exp|version:2")
    assert "2 of 6 prompts are too long" in found["bleu"].note
    for reading in found.values():
        if reading.value is not None:
            assert reading.n == 4
            assert reading.low <= reading.value <= reading.high


def test_a_reference_more_can_only_help() -> None:
    fewer, more = summarized(SAID, [several[:1] for several in WANTED]), summarized(SAID, WANTED)
    for name in ("bleu", "rouge_l", "exact_match"):
        assert more[name].value >= fewer[name].value
    assert more["bleu"].value == pytest.approx(summarized(SAID, [[*several, several[0]] for several in WANTED])["bleu"].value)


def test_numbers_are_read_only_where_all_references_hold_one() -> None:
    found = summarized(SAID, WANTED)["number_match"]
    assert (found.value, found.note) == (None, "not every reference holds a number")
    sums = summarized(["so 3 + 4 = 7", "It's 1,200.", "none"], [["#### 7"], ["1200"], ["5", "five is 5"]])["number_match"]
    assert (sums.value, sums.n, sums.interval) == (pytest.approx(2 / 3), 3, "Wilson 95%")


def test_candidates_that_hold_fewer_tokens_answer_a_part_of_the_same_prompts() -> None:
    prompts = [Prompt([0] * (5 + at % 7), str(at), ["yes"], at) for at in range(300)]
    asked = {}
    for most in (99, 10, 8):
        short = [prompt for prompt in prompts if len(prompt.tokens) <= most]
        found, too_long = answers.drawn(SimpleNamespace(prompts=short, too_long=300 - len(short)), answers.Config())
        asked[most] = {prompt.text for prompt in found}
        assert len(found) + too_long == 100
    assert asked[8] < asked[10] < asked[99]


def test_intervals_narrow_with_the_prompts() -> None:
    rng = np.random.default_rng(0)
    wanted = [" ".join(rng.choice(["the", "mill", "is", "a", "cheap", "pub"], size=8)) for _ in range(200)]
    said = [text if rng.random() < 0.3 else " ".join(rng.permutation(text.split())) for text in wanted]
    for name in ("bleu", "rouge_l", "exact_match"):
        few, many = (summarized(said[:count], [[text] for text in wanted[:count]])[name] for count in (20, 200))
        assert few.high - few.low > 1.8 * (many.high - many.low) > 0
        assert few.low < few.value < few.high


def test_a_real_model_answers(lm: Callable[..., Any]) -> None:
    subject, config = lm(), answers.Config(max_new=12, batch_size=4)
    taken = answers.sample(subject, config)
    assert len(taken["bleu"]) == len(subject.prompts) == 9, "rows with the same prompt are one item"
    assert len(subject.prompts[0].references) == 3
    first = taken["examples"][0]
    assert len(taken["examples"]) == 5
    assert (first["prompt"], first["reference"]) == ("name[The Mill], food[Fast]", "The Mill serves fast food.")
    assert first["answer"]
    alone = answers.sample(subject, answers.Config(max_new=12, batch_size=1))
    assert [one["answer"] for one in alone["examples"]] == [one["answer"] for one in taken["examples"]]
    found = answers.summarize([taken], config)
    assert found["ended"].n == 9
    assert 0 <= found["rouge_l"].value < 0.5
    assert answers.examples([taken]) == taken["examples"]


def test_greedy_answers_are_those_of_transformers(lm: Callable[..., Any]) -> None:
    import torch

    subject = lm()
    taken = answers.sample(subject, answers.Config(max_new=20))
    for prompt, one in zip(subject.prompts[:5], taken["examples"], strict=True):
        ids = torch.tensor([prompt.tokens])
        with torch.inference_mode():
            out = subject.decoder.model.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=2, pad_token_id=2)
        assert one["answer"] == subject.tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True).strip()


def test_what_an_answer_ends_with(lm: Callable[..., Any]) -> None:
    subject = lm()
    assert subject.ends == {2}
    after = subject.decoder.begin(*(np.array([row]) for row in (subject.prompts[0].tokens, [1] * len(subject.prompts[0].tokens))))
    subject.ends = {int(after.argmax())}
    taken = answers.sample(subject, answers.Config(max_new=6, rows=9))
    assert taken["examples"][0]["ended"]
    assert taken["examples"][0]["answer"] == ""


def test_a_draw_is_seeded_and_no_larger_than_asked(lm: Callable[..., Any]) -> None:
    subject = lm()
    draws = [answers.sample(subject, answers.Config(rows=3, max_new=2, seed=seed)) for seed in (0, 0, 1)]
    assert [len(taken["bleu"]) for taken in draws] == [3, 3, 3]
    assert draws[0] == draws[1]
    assert draws[0]["examples"] != draws[2]["examples"]


def test_plain_texts_have_nothing_to_answer(lm: Callable[..., Any]) -> None:
    found = answers.summarize([answers.sample(lm("text"), answers.Config())], answers.Config())
    assert set(found) == {*answers.READINGS} - {"format_valid"}, "the study gives no format"
    assert all(reading.value is None and "no prompts" in reading.note for reading in found.values())


def test_prompts_beyond_the_length_are_left_out_and_counted(lm: Callable[..., Any]) -> None:
    lengths = [len(prompt.tokens) for prompt in lm().prompts]
    subject = lm(max_length=max(lengths) - 1)
    assert subject.too_long == sum(length == max(lengths) for length in lengths) > 0
    found = answers.summarize([answers.sample(subject, answers.Config(max_new=2))], answers.Config())
    assert found["ended"].n == 9 - subject.too_long
    assert "too long and left out" in found["ended"].note


def test_an_answer_stops_where_the_model_has_no_room(lm: Callable[..., Any]) -> None:
    subject = lm()
    subject.ends = set()  # so that nothing but the room ends an answer
    context = max(len(prompt.tokens) for prompt in subject.prompts) + 3
    subject.decoder.model.config.max_position_embeddings = context
    found = answers._answered(subject, subject.prompts, answers.Config(batch_size=16))
    assert [len(answer.tokens) for answer in found] == [min(100, context - len(prompt.tokens)) for prompt in subject.prompts]


@pytest.mark.parametrize(("form", "valid"), [
    ({"regex": r"[A-Z].*\."}, [True, False, False, False]), ({"regex": "no|THE"}, [False, True, False, False])])
def test_the_share_of_answers_with_the_format(form: dict[str, str], valid: list[bool]) -> None:
    asked = AnswerFormat(**form)
    taken = {**answers.scored(SAID, WANTED, asked), "ended": [True] * 4, "too_long": 0}
    found = answers.summarize([taken], answers.Config(format=asked))["format_valid"]
    assert (found.value, found.n, found.interval) == (sum(valid) / 4, 4, "Wilson 95%")
    assert found.low < found.value < found.high
    own = {r"[A-Z].*\.": 2, "no|THE": 4}[form["regex"]]
    assert f"{own} of 4 references don't have the format" in found.note
    assert "format_valid" not in summarized(SAID, WANTED)


def test_a_real_models_answers_are_checked(lm: Callable[..., Any]) -> None:
    config = answers.Config(max_new=8, format={"regex": "(?s).*"})
    assert answers.summarize([answers.sample(lm(), config)], config)["format_valid"].value == 1
