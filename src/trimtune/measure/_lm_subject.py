"""A language model that is measured, loaded in its own process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from trimtune.engines._decoding import Decoder, generate
from trimtune.measure._candidate import Loaded, load, share
from trimtune.study import language
from trimtune.study.turns import TEXT, Row, as_text
from trimtune.tasks._inputs import Inputs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORK_TOKENS = 32


class Prompt(NamedTuple):
    """One distinct prompt of the test rows, with every answer that rows give it."""

    tokens: list[int]
    text: str
    references: list[str]
    at: int
    """its place among all distinct prompts, those too long for this candidate counted"""


@dataclass
class LMSubject:
    """`loaded.run` is a Decoder.

    Args:
        inputs: the test rows as tokens.
        groups: file row → number of its prompt; rows of one prompt are no independent draws. A plain text stands for itself.
        prompts: none where rows are plain texts.
        max_length: tokens kept of a row.
        too_long: prompts that were left out for their length.
        starts: what timed answers begin with: prompts, or the first halves of plain texts.
        ends: the tokens that end an answer.
    """

    folder: Path
    loaded: Loaded
    tokenizer: PreTrainedTokenizerBase
    inputs: Inputs
    groups: dict[int, int]
    prompts: list[Prompt]
    max_length: int
    too_long: int
    starts: list[list[int]]
    ends: set[int]
    turn: int = 0
    together: int = 8
    opening: dict[str, Any] = field(default_factory=dict)

    @property
    def decoder(self) -> Decoder:
        decoder: Decoder = self.loaded.run
        return decoder

    def draw(self, count: int, seed: int, new_tokens: int, turn: int | None = None) -> list[list[int]]:
        """A turn's share of the starts (the present turn's, if none is given), their ends, so that `new_tokens` have room."""
        room = max(1, self.decoder.context - new_tokens)
        return [tokens[-room:] for tokens in share(self.starts, count, seed, self.turn if turn is None else turn)]

    def work(self, rows: int, seed: int) -> None:
        generate(self.decoder, self.draw(rows, seed, WORK_TOKENS), (), WORK_TOKENS)

    def text(self) -> str:
        return str(self.tokenizer.decode(self.starts[0], skip_special_tokens=True))


def open_lm(task: ModuleType, folder: Path, engine: str, rows: Path, max_length: int, threads: int,
            reading: dict[str, Any], split: str = "test") -> LMSubject:
    """A candidate: what its engine made of a model."""
    return subject_of(task, folder, rows, max_length, reading, lambda: load(folder, engine, threads), split)


def subject_of(task: ModuleType, folder: Path, rows: Path, max_length: int, reading: dict[str, Any],
               opened: Callable[[], Loaded], split: str = "test") -> LMSubject:
    """The rows of a split as this folder's tokenizer reads them, then what `opened` loads, so that memory counts only that."""
    tokenizer, read = task.load_tokenizer(folder), getattr(language.load(rows), split)
    inputs = task.inputs(tokenizer, read, max_length, split, **reading)
    rendering, asked = task.rendered(tokenizer, **reading), _asked(read)
    prompts = [Prompt(rendering.asked(turns, split), as_text(turns), [read.rows[index][-1].content for index in indices], at)
               for at, (turns, indices) in enumerate((turns, rows) for turns, rows in asked.items() if turns[-1].role != TEXT)]
    ends, loaded = task.ends(rendering) if prompts else set(), opened()
    short = [prompt for prompt in prompts if len(prompt.tokens) <= min(max_length, loaded.run.context - 1)]
    starts = [prompt.tokens for prompt in short or prompts] or [ids[:max(1, len(ids) // 2)] for ids in inputs.ids]
    return LMSubject(folder, loaded, tokenizer, inputs, _groups(read, asked), short, max_length, len(prompts) - len(short),
                     starts, ends)


def scored_subject(task: ModuleType, folder: Path, decoder: Decoder, tokenizer: PreTrainedTokenizerBase, test: language.Split,
                   max_length: int, reading: dict[str, Any]) -> LMSubject:
    """A decoder that is loaded already, with rows to be scored and no prompts to answer."""
    inputs, loaded = task.inputs(tokenizer, test, max_length, "test", **reading), Loaded(decoder, 0.0, False)
    return LMSubject(folder, loaded, tokenizer, inputs, _groups(test, _asked(test)), [], max_length, 0, [], set())


def _asked(test: language.Split) -> dict[Row, list[int]]:
    """Each distinct prompt, and the places of its rows in the split."""
    asked: dict[Row, list[int]] = {}
    for index, row in enumerate(test.rows):
        asked.setdefault(language.prompt(row) or row, []).append(index)
    return asked


def _groups(test: language.Split, asked: dict[Row, list[int]]) -> dict[int, int]:
    return {test.numbers[index]: group for group, indices in enumerate(asked.values()) for index in indices}
