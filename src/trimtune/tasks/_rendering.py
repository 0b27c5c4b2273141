"""Rows of turns as tokens, each marked as learned or not: one rendering for fits, scores, answers and what is shipped.

    text    the text, then the end token; all of it is learned
    pairs   the prompt, a line break, the completion, the end token; completion and end are learned
    chat    what the chat template makes of the turns; the assistant's answers and their end-of-turn tokens are learned

Pairs go through a chat template too where the study gives one or the tokenizer has one. Each stretch between a place where
a prompt ends and one where an answer ends is tokenized by itself, since that is how a prompt is tokenized when an answer
is asked for; so no token straddles the two.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.study.turns import ASSISTANT, TEXT, Row, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_AFTER_PROMPT = "\n"
"""between a pair's prompt and its completion, where no template says more"""
_CLOCK = re.compile(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""")
_TODAY = date(2024, 7, 26)
"""what Llama's templates say where no clock is at hand"""


@dataclass(frozen=True)
class Rendering:
    """How turns become tokens.

    Args:
        template: a chat template in Jinja; "" for none.
        loss: `answers`, or `all` tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    kind: str
    template: str = ""
    loss: str = "answers"

    def tokens(self, row: Row, at: str = "a row") -> tuple[list[int], list[bool]]:
        """A row's tokens, and which of them are learned."""
        ids = self._begin(row)
        learned = [self.loss == "all"] * len(ids)
        for text, answer in self.stretches(row, at):
            piece, marks = self._stretch(text, answer)
            ids += piece
            learned += marks
        if not any(learned[1:]):
            raise TrimtuneError(f"{at}: no token is learned.", "A row must have an answer, or a text, of at least one token.",
                                "Correct or remove the row.")
        if self.kind != "text" and self.loss == "answers" and all(learned[len(self._begin(row)):]):
            raise TrimtuneError(f"{at}: all tokens are learned, the prompt too.", "A template must render what the user says.",
                                "Correct data.template, or write `loss: all` under `data` if it is meant so.")
        return ids, learned

    def asked(self, turns: Row, at: str = "a prompt") -> list[int]:
        """The tokens after which an answer begins; `turns` ends with the user's."""
        if self.kind == "text":
            return [*self._begin(turns), *self.tokenizer(turns[-1].content, add_special_tokens=False)["input_ids"]]
        ids = self._begin(turns)
        for text, answer in self.stretches((*turns, Turn(ASSISTANT, "…")), at)[:-1]:
            ids += self._stretch(text, answer)[0]
        return ids

    def stretches(self, row: Row, at: str = "a row") -> list[tuple[str, bool]]:
        """A row as stretches of text, each an answer or not, in turns."""
        if self.kind == "text":
            return [(row[0].content, True)]
        if not self.template:
            if self.kind == "chat":
                raise TrimtuneError("data.template: the tokenizer has no chat template, and the study gives none.",
                                    "Conversations need one, in training as in use.",
                                    "Write `data: {template: chat.jinja}`, or choose a model that was tuned to chat.")
            prompt = row[0].content
            return [(prompt if prompt[-1:].isspace() else prompt + _AFTER_PROMPT, False), (row[1].content, True)]
        return list(self._by_template(row, at))

    def _by_template(self, row: Row, at: str) -> Iterator[tuple[str, bool]]:
        done = ""
        for index, turn in enumerate(row):
            if turn.role != ASSISTANT:
                continue
            before, after = self._rendered(row[:index], True, at), self._rendered(row[:index + 1], False, at)
            if not before.startswith(done) or not after.startswith(before):
                raise TrimtuneError(
                    f"{at}: the chat template renders the turns before turn {index + 1} differently once its answer is there.",
                    "What is rendered as a prompt must begin what is rendered with its answer, or the two don't fit in use.",
                    "Give a template that leaves earlier turns as they are: `data: {template: chat.jinja}`.")
            for said in row[:index + 1]:
                if said.content.strip() not in after:
                    raise TrimtuneError(f"{at}: the chat template drops what the {said.role} says.",
                                        "Each turn's content must be in what it renders.", "Correct data.template.")
            yield before[len(done):], False
            yield after[len(before):], True
            done = after

    def _rendered(self, turns: Sequence[Turn], prompt: bool, at: str) -> str:
        import jinja2

        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            return str(self.tokenizer.apply_chat_template(messages, chat_template=dated(self.template), tokenize=False,
                                                          add_generation_prompt=prompt))
        except (jinja2.TemplateError, TypeError, ValueError, KeyError) as error:
            what = (str(error).splitlines() or [type(error).__name__])[0]
            raise TrimtuneError(f"{at}: the chat template can't render its turns ({what}).",
                                "It is a Jinja template over `messages`, each with role and content.",
                                "Correct data.template, or leave out turns that it doesn't know.") from None

    def _begin(self, row: Row) -> list[int]:
        """The token that begins every row, if the tokenizer writes one and no template does."""
        first = self.tokenizer.bos_token_id
        if first is None or (self.template and row[0].role != TEXT):
            return []
        return [first] if self.tokenizer("a")["input_ids"][:1] == [first] else []

    def _stretch(self, text: str, answer: bool) -> tuple[list[int], list[bool]]:
        """The tokens of a stretch. An answer ends with the template's own end-of-turn token, or with the tokenizer's end.

        What a template writes after its end-of-turn token belongs to what follows, and is learned only if everything is.
        """
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not answer:
            return ids, [self.loss == "all"] * len(ids)
        last = self._last_special(ids) if self._template_ends else None
        if last is None:
            return [*ids, end_of(self.tokenizer)], [True] * (len(ids) + 1)
        return ids, [index <= last or self.loss == "all" for index in range(len(ids))]

    @cached_property
    def _special(self) -> set[int]:
        return {*self.tokenizer.all_special_ids, *self.tokenizer.added_tokens_decoder}

    @cached_property
    def _template_ends(self) -> bool:
        """Whether the template ends an answer; asked of a plain one, since an answer may hold special tokens of its own."""
        if not self.template:
            return False
        answer = self.stretches((Turn("user", "a"), Turn(ASSISTANT, "b")))[-1][0]
        return self._last_special(self.tokenizer(answer, add_special_tokens=False)["input_ids"]) is not None

    def _last_special(self, ids: Sequence[int]) -> int | None:
        return next((index for index in range(len(ids) - 1, -1, -1) if ids[index] in self._special), None)

    def words(self) -> list[str]:
        """What the user should know about this rendering."""
        end = self.tokenizer.convert_ids_to_tokens(end_of(self.tokenizer))
        notes = []
        if self.template:
            answer = self.stretches((Turn("user", "a"), Turn(ASSISTANT, "b")))[-1][0]
            ids: list[int] = self.tokenizer(answer, add_special_tokens=False)["input_ids"]
            last = self._last_special(ids)
            notes.append(f"chat template {digest(self.template)}; an answer ends with "
                         + (f"{end}, added since the template ends none" if last is None
                            else self.tokenizer.convert_ids_to_tokens(ids)[last]))
            if _CLOCK.search(self.template):
                notes.append(f"the chat template asks for today's date; it is always told {_TODAY:%d %b %Y}")
        elif self.kind == "pairs":
            notes.append(f"no chat template: prompt, line break, completion, {end}")
        if self.tokenizer.pad_token_id in (None, self.tokenizer.eos_token_id):
            notes.append(f"padding is written as {end}, and left out by its place: the end of an answer is learned all the same")
        return notes

    def facts(self) -> dict[str, str]:
        """By what a rendering is told from another: `kind`, what is `learned`, the hash of the `template`, "" for none."""
        return {"kind": self.kind, "learned": self.loss, "template": digest(self.template) if self.template else ""}


def digest(template: str) -> str:
    """The short hash by which a template is told from another, in manifests and messages."""
    return hashlib.sha256(template.encode()).hexdigest()[:12]


def dated(template: str) -> str:
    """A template that asks for today's date, told the same one always: else a row would be other tokens on another day.

    Raises:
        TrimtuneError: it asks in a form that isn't written out in it.
    """
    found = _CLOCK.sub(lambda asked: repr(_TODAY.strftime(asked[2])), template)
    if "strftime_now(" in found:
        raise TrimtuneError("data.template: it asks for the time in a form that it works out itself.",
                            'Rows must be the same tokens on every day. Allowed: strftime_now("%d %b %Y") and the like.',
                            "Write the form into the template, or leave the date out.")
    return found


def end_of(tokenizer: Any) -> int:
    """The token that ends an answer.

    Raises:
        TrimtuneError: the tokenizer has none, so no model could learn to stop.
    """
    if tokenizer.eos_token_id is None:
        raise TrimtuneError("model: its tokenizer has no end token.", "Without one no answer ever ends.",
                            "Set eos_token in its tokenizer_config.json, or give a chat template whose answers end with one.")
    return int(tokenizer.eos_token_id)
