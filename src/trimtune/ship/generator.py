"""From prompts to answers: a language model's bundle or folder, tuned or exported, with the rendering that it was tuned with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from trimtune import parts
from trimtune.engines import _decoding, _graph, _threads
from trimtune.errors import TrimtuneError
from trimtune.process import threads
from trimtune.ship.manifest import MODEL
from trimtune.ship.prompts import prompt_of
from trimtune.study.turns import TEXT, USER, Row, Turn
from trimtune.tasks import causal_lm
from trimtune.tasks._inputs import READING, reading_in

if TYPE_CHECKING:
    from trimtune.engines._decoding import Decoder

BATCH = 8
CHUNK = 256
"""prompts that are taken from a stream, sorted by length and answered at a time"""
MAX_NEW = 200


class Generator:
    """What `trimtune.load` returns of a language model: call it with prompts, or `stream` the answer to a conversation.

    Greedy: the same prompt has the same answer.

    >>> model = trimtune.load("bundle/")                 # doctest: +SKIP
    >>> model(["name[The Mill], food[English]"])         # doctest: +SKIP
    ['The Mill serves English food.']

    Args:
        reading: how its rows became tokens. Its `kind`: `chat` keeps a history, `pairs` answers each prompt by itself, `text`
            goes on with what is given.
        manifest: of a bundle; empty for another folder.
    """

    def __init__(self, decoder: Decoder, tokenizer: Any, reading: dict[str, Any], manifest: dict[str, Any] | None = None) -> None:
        self.kind: str = reading["kind"]
        self.decoder, self.tokenizer, self.reading, self.manifest = decoder, tokenizer, reading, manifest or {}
        self._rendering = causal_lm.rendered(tokenizer, **reading)
        self._ends = causal_lm.ends(self._rendering) if self.kind != TEXT else {tokenizer.eos_token_id}

    def __call__(self, prompts: Sequence[Any], max_new: int = MAX_NEW) -> list[str]:
        """The answers in the order of the prompts, each of at most `max_new` tokens.

        Args:
            prompts: texts; of a model of conversations also lists of turns, [{"role": "user", "content": "…"}].

        Raises:
            TrimtuneError: one bare text, no prompt, or one that is too long (said with its number).
        """
        return list(self.answers(prompts, max_new))

    def answers(self, prompts: Iterable[Any], max_new: int = MAX_NEW) -> Iterator[str]:
        """The same without holding more than 256 prompts: for files and pipes of any length."""
        if isinstance(prompts, str):
            raise TrimtuneError(f"One bare prompt was given: {prompts[:40]!r}.", "Allowed: a list (or any iterable) of prompts.",
                                "Put it into a list: model([prompt]).")
        waiting, done = iter(prompts), 0
        while chunk := list(islice(waiting, CHUNK)):
            yield from self._answered([self._asked(prompt, f"prompt {done + index}") for index, prompt in enumerate(chunk, 1)],
                                      max_new)
            done += len(chunk)

    def _asked(self, prompt: Any, at: str) -> list[int]:
        tokens = self._rendering.asked(prompt_of(prompt, self.kind, at), at)
        if not 0 < len(tokens) < self.decoder.context:
            raise TrimtuneError(f"{at} has {len(tokens)} tokens.",
                                f"Allowed: 1 to {self.decoder.context - 1}, so that there is room for an answer.",
                                "Shorten it." if tokens else "Ask something.")
        return tokens

    def _answered(self, asked: Sequence[list[int]], max_new: int) -> list[str]:
        """Prompts of like length share a batch, so little is padded."""
        order, said = sorted(range(len(asked)), key=lambda index: len(asked[index])), [""] * len(asked)
        for start in range(0, len(order), BATCH):
            batch = order[start:start + BATCH]
            found = _decoding.generate(self.decoder, [asked[index] for index in batch], self._ends, max_new)
            for index, answer in zip(batch, found, strict=True):
                said[index] = self._text(answer.tokens).strip()
        return said

    def turn(self, text: str) -> Turn:
        """What a user says, as this model's rows have it."""
        return Turn(TEXT if self.kind == TEXT else USER, text)

    def has_room(self, turns: Row) -> bool:
        """Whether an answer to these turns can begin: the model holds them and one token more."""
        return len(self._rendering.asked(turns)) < self.decoder.context

    def stream(self, turns: Row, max_new: int = MAX_NEW) -> Iterator[str]:
        """The answer to a conversation that ends with the user's turn, piece by piece as it is written."""
        tokens: list[int] = []
        said = ""
        for token in _decoding.stream(self.decoder, self._rendering.asked(turns), self._ends, max_new):
            tokens.append(token)
            whole = self._text(tokens).rstrip("\ufffd")  # the rest of a character is still to come
            if len(whole) > len(said):
                yield whole[len(said):]
                said = whole
        if rest := self._text(tokens)[len(said):]:
            yield rest

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text


def load(folder: Path) -> Generator:
    """The language model of a tuned or an exported folder.

    Raises:
        TrimtuneError: the folder holds none, or its engine isn't installed.
    """
    folder = folder.expanduser()
    reading = _reading(folder)
    if (folder / _graph.NOTES).is_file():
        engine = parts.load("engine", _graph.noted(folder)["engine"], str(folder))
        if lacking := engine.available():
            raise TrimtuneError(f"{folder} needs an engine that isn't available here: {lacking}.",
                                "An exported folder runs on the engine that wrote it.", "Install it, or take the tuned folder.")
        decoder = engine.load(folder, _threads.used(folder, threads()))
    else:
        from trimtune.engines._torch_decoder import TorchDecoder

        decoder = TorchDecoder(causal_lm.load_model(folder))
    return Generator(decoder, causal_lm.load_tokenizer(folder), reading)


def of_bundle(folder: Path, manifest: dict[str, Any], engine: ModuleType, n_threads: int) -> Generator:
    """The language model of a bundle whose files were checked.

    Raises:
        TrimtuneError: its prompts would be rendered differently than in training.
    """
    model = folder / MODEL
    reading, tokenizer = _reading(model), causal_lm.load_tokenizer(model)
    here, then = causal_lm.rendered(tokenizer, **reading).facts(), manifest["rendering"]
    if here != then:
        unlike = next(key for key in (*then, *here) if here.get(key) != then.get(key))
        raise TrimtuneError(f"The bundle {folder} would render prompts differently than in training: {unlike} is "
                            f"{here.get(unlike) or 'none'}, in its manifest {then.get(unlike) or 'none'}.",
                            "A prompt in use must be what it was in training, token by token.",
                            "Ship it anew: trimtune ship runs/NAME -o bundle/")
    return Generator(engine.load(model, n_threads), tokenizer, reading, manifest)


def _reading(folder: Path) -> dict[str, Any]:
    if not (folder / READING).is_file():
        raise TrimtuneError(f"{folder} holds no language model of ours: there is no {READING}.",
                            "Allowed: a bundle, or what `trimtune tune --task causal-lm` or a run of such a study wrote.",
                            "Give such a folder.")
    return reading_in(folder)
