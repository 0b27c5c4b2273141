"""From prompts to answers: a language model's folder, tuned or exported, with the rendering that it was tuned with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.engines import _decoding, _graph
from trimtune.errors import TrimtuneError
from trimtune.process import threads
from trimtune.study.turns import TEXT, USER, Row, Turn
from trimtune.tasks import causal_lm
from trimtune.tasks._inputs import READING

if TYPE_CHECKING:
    from trimtune.engines._decoding import Decoder

BATCH = 8


class Generator:
    """Call it with prompts, or `stream` the answer to a conversation. Greedy: the same prompt has the same answer.

    Args:
        kind: of its rows: `chat` keeps a history, `pairs` answers each prompt by itself, `text` goes on with what is given.
    """

    def __init__(self, decoder: Decoder, tokenizer: Any, reading: dict[str, Any]) -> None:
        self.kind: str = reading["kind"]
        self._decoder, self._tokenizer = decoder, tokenizer
        self._rendering = causal_lm.rendered(tokenizer, **reading)
        self._ends = causal_lm.ends(self._rendering) if self.kind != TEXT else {tokenizer.eos_token_id}

    def __call__(self, prompts: Sequence[str], max_new: int = 200) -> list[str]:
        """The answers in the order of the prompts, each of at most `max_new` tokens."""
        asked = [self._rendering.asked((self.turn(prompt),), f"prompt {index + 1}") for index, prompt in enumerate(prompts)]
        order, said = sorted(range(len(asked)), key=lambda index: len(asked[index])), [""] * len(asked)
        for start in range(0, len(order), BATCH):
            batch = order[start:start + BATCH]
            found = _decoding.generate(self._decoder, [asked[index] for index in batch], self._ends, max_new)
            for index, answer in zip(batch, found, strict=True):
                said[index] = self._text(answer.tokens).strip()
        return said

    def turn(self, text: str) -> Turn:
        """What a user says, as this model's rows have it."""
        return Turn(TEXT if self.kind == TEXT else USER, text)

    def stream(self, turns: Row, max_new: int = 200) -> Iterator[str]:
        """The answer to a conversation that ends with the user's turn, piece by piece as it is written."""
        tokens: list[int] = []
        said = ""
        for token in _decoding.stream(self._decoder, self._rendering.asked(turns), self._ends, max_new):
            tokens.append(token)
            whole = self._text(tokens).rstrip("\ufffd")  # the rest of a character is still to come
            if len(whole) > len(said):
                yield whole[len(said):]
                said = whole
        if rest := self._text(tokens)[len(said):]:
            yield rest

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def load(folder: Path) -> Generator:
    """The language model of a tuned or an exported folder.

    Raises:
        TrimtuneError: the folder holds none.
    """
    folder = folder.expanduser()
    if not (folder / READING).is_file():
        raise TrimtuneError(f"{folder} holds no language model of ours: there is no {READING}.",
                            "Allowed: a folder that `trimtune tune --task causal-lm` or a run of such a study wrote.",
                            "Give such a folder.")
    reading = json.loads((folder / READING).read_text(encoding="utf-8"))
    if (folder / _graph.NOTES).is_file():
        decoder = parts.load("engine", _graph.noted(folder)["engine"]).load(folder, threads())
    else:
        from trimtune.engines._torch_decoder import TorchDecoder

        decoder = TorchDecoder(causal_lm.load_model(folder))
    return Generator(decoder, causal_lm.load_tokenizer(folder), reading)
