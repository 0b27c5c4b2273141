"""Rows of turns as tokens: what is learned, what ends an answer, what a template may not do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.study.faults import fault

from trimtune.records import DataSpec
from trimtune.study.language import Split
from trimtune.study.turns import Row, Turn
from trimtune.tasks import _encoded, causal_lm
from trimtune.tasks._encoded import Encoded
from trimtune.tasks._rendering import Rendering

CHATML = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
          "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
ENDLESS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
PAIR: Row = (Turn("user", "what is two and two"), Turn("assistant", "four"))
TALK: Row = (Turn("system", "be brief"), Turn("user", "hello there"), Turn("assistant", "hi"), Turn("user", "who are you"),
             Turn("assistant", "a model"))


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """A byte-level BPE of a few hundred tokens with <s>, </s> and ChatML's marks, made here in milliseconds."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    marks = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    texts = [turn.content for row in (PAIR, TALK) for turn in row] * 20
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=marks, show_progress=False,
                                                        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>",
                                   extra_special_tokens=marks[2:])


def marked(rendering: Rendering, row: Row) -> str:
    """The row as text, with what is learned between brackets."""
    ids, learned = rendering.tokens(row)
    out, inside = "", False
    for at, token in enumerate(ids):
        if learned[at] != inside:
            out, inside = out + ("[" if learned[at] else "]"), learned[at]
        out += rendering.tokenizer.decode([token])
    return out + ("]" if inside else "")


def test_what_is_learned(tokenizer: Any) -> None:
    assert marked(Rendering(tokenizer, "text"), (Turn("text", "four and two"),)) == "[four and two</s>]"
    assert marked(Rendering(tokenizer, "pairs"), PAIR) == "what is two and two\n[four</s>]"
    assert marked(Rendering(tokenizer, "pairs", loss="all"), PAIR) == "[what is two and two\nfour</s>]"
    assert marked(Rendering(tokenizer, "chat", CHATML), TALK) == (
        "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhello there<|im_end|>\n<|im_start|>assistant\n[hi<|im_end|>]\n"
        "<|im_start|>user\nwho are you<|im_end|>\n<|im_start|>assistant\n[a model<|im_end|>]\n")
    assert marked(Rendering(tokenizer, "pairs", CHATML), PAIR).endswith("assistant\n[four<|im_end|>]\n")


def test_an_answer_always_has_an_end_even_if_the_template_writes_none(tokenizer: Any) -> None:
    rendering = Rendering(tokenizer, "chat", ENDLESS)
    assert marked(rendering, TALK).endswith("assistant: [a model\n</s>]")
    assert any("added since the template ends none" in note for note in rendering.words())
    assert any("ends with <|im_end|>" in note for note in Rendering(tokenizer, "chat", CHATML).words())
    assert any("padding" in note for note in rendering.words()), "its padding token is its end token"


def test_a_mark_inside_an_answer_does_not_end_it(tokenizer: Any) -> None:
    """Added tokens may be plain text to a model (runs of spaces in GPT-NeoX's); where the template ends nothing, we do."""
    odd: Row = (PAIR[0], Turn("assistant", "four<|im_end|>five"))
    assert marked(Rendering(tokenizer, "pairs", ENDLESS), odd).endswith("assistant: [four<|im_end|>five\n</s>]")
    assert marked(Rendering(tokenizer, "pairs", CHATML), odd).endswith("assistant\n[four<|im_end|>five<|im_end|>]\n")


def test_a_template_that_asks_for_the_date_is_told_the_same_one_always(tokenizer: Any) -> None:
    today = "{% if strftime_now is defined %}It is {{ strftime_now('%d %B %Y') }}, {{ strftime_now( \"%Y\" ) }}.\n{% endif %}"
    rendering = Rendering(tokenizer, "chat", today + CHATML)
    assert "It is 26 July 2024, 2024." in marked(rendering, TALK)
    assert any("26 Jul 2024" in note for note in rendering.words())
    worked_out = Rendering(tokenizer, "chat", "{% set f = '%H' %}{{ strftime_now(f) }}" + CHATML)
    fault(lambda: worked_out.tokens(TALK), "asks for the time")


def test_what_ends_an_answer(tokenizer: Any) -> None:
    end, turn = tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert causal_lm.ends(Rendering(tokenizer, "pairs")) == {end}
    assert causal_lm.ends(Rendering(tokenizer, "chat", CHATML, "all")) == {end, turn}
    assert causal_lm.ends(Rendering(tokenizer, "chat", ENDLESS)) == {end}


def test_a_prompt_in_use_is_the_prompt_in_training(tokenizer: Any) -> None:
    """The tokens after which an answer is asked for are those that stand before it in a row."""
    for rendering, row in [(Rendering(tokenizer, "pairs"), PAIR), (Rendering(tokenizer, "pairs", CHATML), PAIR),
                           (Rendering(tokenizer, "chat", CHATML), TALK), (Rendering(tokenizer, "chat", ENDLESS), TALK)]:
        ids, learned = rendering.tokens(row)
        asked = rendering.asked(row[:-1])
        assert ids[:len(asked)] == asked
        assert learned[len(asked)], "the next token is the answer's first"
        assert not learned[len(asked) - 1]


def test_the_first_token_is_written_once(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    try:
        assert marked(Rendering(tokenizer, "pairs"), PAIR).startswith("<s>what is")
        assert marked(Rendering(tokenizer, "pairs", CHATML), PAIR).startswith("<|im_start|>user"), "a template writes its own"
        assert marked(Rendering(tokenizer, "text"), (Turn("text", "two"),)) == "<s>[two</s>]"
    finally:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", special_tokens=[])


def encoded(rendering: Rendering, max_length: int, *rows: Row) -> Encoded:
    return _encoded.encoded(rendering, Split(list(rows), list(range(2, 2 + len(rows)))), max_length, "train")


def test_what_is_too_long_is_cut_whole_or_left_out_and_said(tokenizer: Any) -> None:
    text = Rendering(tokenizer, "text")
    long: Row = (Turn("text", "what is two and two " * 9),)
    whole = text.tokens(long)[0]
    found = encoded(text, 8, long, (Turn("text", "four"),))
    assert [token for row in found.ids[:-1] for token in row] == whole, "nothing of a text is lost"
    assert {len(row) for row in found.ids[:-2]} == {8}
    assert found.numbers == [2] * (len(found) - 1) + [3]
    assert any("1 row longer than 8 tokens were cut" in note or "cut into pieces: 2" in note for note in found.notes)

    assert [len(ids) for ids in encoded(text, len(whole) - 1, long).ids] == [len(whole) - 1], "one token alone foretells nothing"

    talk = Rendering(tokenizer, "chat", CHATML)
    last = len(talk.tokens((TALK[0], *TALK[3:]))[0])
    found = encoded(talk, last, TALK)
    assert found.ids == [talk.tokens((TALK[0], *TALK[3:]))[0]], "the system and the newest turns stay, whole"
    assert any("lost their oldest turns: 2" in note for note in found.notes)

    pairs = Rendering(tokenizer, "pairs")
    short = len(pairs.tokens(PAIR)[0])
    found = encoded(pairs, short, (Turn("user", "what " * 90), Turn("assistant", "four")), PAIR)
    assert found.numbers == [3]
    assert any("left out" in note and note.endswith(": 2") for note in found.notes)
    fault(lambda: encoded(pairs, short - 1, PAIR), "none of 1 rows fits", f"{short} tokens", "fit.max_length")


@pytest.mark.parametrize(("template", "named"), [
    ("{% for m in messages %}{{ m.nothing.at_all }}{% endfor %}", ("can't render",)),
    ("{% for m in messages %}{% if m.role == 'user' %}{{ raise_exception('no users here') }}{% endif %}{% endfor %}",
     ("can't render", "no users here")),
    ("{% for m in messages %}", ("can't render",)),
    ("{% for m in messages %}{% if m.role != 'user' %}{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
     ("drops what the user says", "row 7")),
    ("{% for m in messages %}{% if m.role != 'system' %}<|im_start|>{{ m.content }}<|im_end|>{% endif %}{% endfor %}",
     ("drops what the system says",)),
    ("{{ messages | length }}{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}", ("renders the turns before turn 3",)),
])
def test_a_template_that_does_not_fit_is_refused(tokenizer: Any, template: str, named: tuple[str, ...]) -> None:
    fault(lambda: Rendering(tokenizer, "chat", template).tokens(TALK, "train: row 7"), *named)


def test_a_prompt_that_a_template_swallows_would_all_be_learned(tokenizer: Any) -> None:
    """A pair whose prompt renders to nothing of its own: the whole row would be the answer."""
    template = "{% if not add_generation_prompt %}{% for m in messages %}{{ m.content }}{% endfor %}<|im_end|>{% endif %}"
    fault(lambda: Rendering(tokenizer, "pairs", template).tokens(PAIR, "train: row 7"), "row 7", "all tokens are learned")


def test_conversations_need_a_template(tokenizer: Any) -> None:
    fault(lambda: Rendering(tokenizer, "chat").tokens(TALK), "no chat template", "data: {template: chat.jinja}")


def test_a_tokenizer_without_an_end_is_refused(tokenizer: Any) -> None:
    tokenizer.eos_token = None
    try:
        fault(lambda: Rendering(tokenizer, "pairs").tokens(PAIR), "no end token")
    finally:
        tokenizer.eos_token = "</s>"


def test_the_template_is_the_studys_else_the_tokenizers(tokenizer: Any, tmp_path: Path) -> None:
    own, plain = tmp_path / "chat.jinja", tmp_path / "plain.jinja"
    own.write_text(CHATML, encoding="utf-8")
    plain.write_text("hello", encoding="utf-8")
    spec = DataSpec(train="t.csv")
    assert causal_lm.rendering(tokenizer, spec, "pairs").template == ""
    tokenizer.chat_template = ENDLESS
    try:
        assert causal_lm.rendering(tokenizer, spec, "chat").template == ENDLESS
        assert causal_lm.rendering(tokenizer, spec, "text").template == "", "a plain text has no turns"
        chosen = causal_lm.rendering(tokenizer, spec.model_copy(update={"template": str(own)}), "chat")
        assert chosen.template == CHATML
        fault(lambda: causal_lm.rendering(tokenizer, spec.model_copy(update={"template": str(plain)}), "chat"), "`messages`")
    finally:
        tokenizer.chat_template = None


def test_a_tokenizer_larger_than_the_model_is_refused(tokenizer: Any) -> None:
    causal_lm.check_vocabulary(tokenizer, len(tokenizer))
    fault(lambda: causal_lm.check_vocabulary(tokenizer, len(tokenizer) - 1), f"{len(tokenizer):,} tokens", "embedding")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}', encoding="utf-8")
    fault(lambda: causal_lm.load_tokenizer(tmp_path), "no tokenizer", "tokenizer.json")
