"""Greedy decoding, whatever the engine: what an engine of language models gives, and the loop over it.

    next token = argmax over V of logits_V; a row ends with its own end token, or where its context is full

Virtual tokens (of prefix, prompt and p_tuning) are the engine's affair: they stand before each row's own tokens, in no `ids` and
no `mask` of this file, and `context` doesn't count them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from trimtune.engines._graph import quickest, rows
from trimtune.errors import StepFailed, TrimtuneError

LENGTHS, _STEPS = (7, 1, 12, 4), 3
"""of the rows that `check` tries: tokens of the prompts, and tokens after them"""
_TIMED_STEPS, _ROUNDS = 8, (6, 6)
"""tokens of a timed stretch of decoding; rounds of the timed prefill, and of the stretches after it"""


class Decoder(Protocol):
    """A language model, loaded by an engine. One batch is decoded at a time: `begin`, then a `step` per token.

    ids: int64 [B, T]; mask: int64 [B, T], 1 for a token, 0 for padding. Logits are float32.
    """

    @property
    def context(self) -> int:
        """Tokens that a row can hold, prompt and answer together."""

    def logits(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """What follows each token, [B, T, V], in one pass without a cache: the reference. Rows are padded on the right."""

    def begin(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """What follows each row, [B, V], and a new cache that holds the rows. Rows are padded on the left."""

    def step(self, tokens_B: np.ndarray) -> np.ndarray:
        """What follows each row, [B, V], once its next token (int64) is in the cache too."""

    def cache_bytes(self) -> int:
        """Bytes of the keys and values in the cache."""


class Answer(NamedTuple):
    """`tokens` without the end token; `ended` tells that there was one: without, the answer was cut."""

    tokens: list[int]
    ended: bool


def generate(decoder: Decoder, prompts: Sequence[Sequence[int]], ends: Collection[int], max_new: int,
             cached: bool = True) -> list[Answer]:
    """The answers to prompts of any lengths, decoded as one batch.

    Args:
        ends: tokens that end an answer.
        max_new: tokens of an answer at most; an end token counts as one.
        cached: False computes every token from the whole row: slow, and what the cache is compared with.

    Raises:
        TrimtuneError: a prompt has no token, or leaves no room for an answer.
        StepFailed: logits that are not finite.
    """
    room = [_room(decoder, prompt, max_new, f"Prompt {index}") for index, prompt in enumerate(prompts)]
    tokens: list[list[int]] = [[] for _ in prompts]
    ended: set[int] = set()
    going = {row for row, count in enumerate(room) if count > 0}
    if going:
        for best_B in (_greedy if cached else _greedy_uncached)(decoder, prompts):
            for row in tuple(going):
                token = int(best_B[row])
                if token in ends:
                    ended.add(row)
                else:
                    tokens[row].append(token)
                if token in ends or len(tokens[row]) == room[row]:
                    going.remove(row)
            if not going:
                break
    return [Answer(found, row in ended) for row, found in enumerate(tokens)]


def stream(decoder: Decoder, prompt: Sequence[int], ends: Collection[int], max_new: int) -> Iterator[int]:
    """The tokens of one answer as they come, its end token left out.

    Raises:
        TrimtuneError, StepFailed: as `generate`, at the first token.
    """
    for best_B in islice(_greedy(decoder, [prompt]), _room(decoder, prompt, max_new, "The prompt")):
        token = int(best_B[0])
        if token in ends:
            return
        yield token


def padded(rows: Sequence[Sequence[int]], left: bool) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, int64 [B, T]; T is the length of the longest row, padding is token 0."""
    width = max(map(len, rows))
    ids_BT, mask_BT = np.zeros((2, len(rows), width), dtype=np.int64)
    for row, tokens in enumerate(rows):
        place = slice(width - len(tokens), width) if left else slice(len(tokens))
        ids_BT[row, place], mask_BT[row, place] = tokens, 1
    return ids_BT, mask_BT


def check(decoder: Decoder, reference: Decoder, vocabulary: int, tolerance: float, engine: str,
          lengths: Sequence[int] = LENGTHS) -> float:
    """The largest |Δlogit| between `begin` and `step` on rows of unlike lengths and the reference's passes without a cache.

    Args:
        lengths: of the rows, in tokens; decoded as one batch.

    Raises:
        StepFailed: beyond the tolerance. An export that answers differently must not be measured.
    """
    draw, steps = np.random.default_rng(0), min(_STEPS, reference.context - 1)
    lengths = [min(length, reference.context - steps) for length in lengths]
    rows_ = [draw.integers(0, vocabulary, length + steps).tolist() for length in lengths]
    wanted_BTV = reference.logits(*padded(rows_, left=False))
    worst = 0.0
    for step in range(steps + 1):
        at = [length + step for length in lengths]
        found_BV = (decoder.step(np.array([row[end - 1] for row, end in zip(rows_, at, strict=True)])) if step else
                    decoder.begin(*padded([row[:end] for row, end in zip(rows_, at, strict=True)], left=True)))
        wanted_BV = wanted_BTV[np.arange(len(rows_)), np.array(at) - 1]
        worst = float(np.maximum(worst, np.abs(found_BV - wanted_BV).max()))  # unlike max(), it keeps a NaN
    if not worst <= tolerance:
        raise StepFailed(f"{engine}: with its cache the model answers differently than without: "
                         f"|Δlogit| {worst:.2g}, allowed {tolerance:g}")
    return worst


def fastest(decoders: Mapping[str, Decoder], vocabulary: int, max_length: int) -> tuple[str, dict[str, list[float]]]:
    """Time one row's prefill and some tokens after it, taking turns.

    Returns:
        as `_graph.quickest`, milliseconds [a prefill, 8 tokens after it].
    """
    return quickest({name: _timed(decoder, vocabulary, max_length) for name, decoder in decoders.items()}, _ROUNDS)


def _timed(decoder: Decoder, vocabulary: int, max_length: int) -> list[Callable[[], object]]:
    ids_BT, mask_BT = rows(1, min(max_length, decoder.context), vocabulary).values()

    def steps() -> None:
        for _ in range(_TIMED_STEPS):
            decoder.step(ids_BT[:, 0])

    return [partial(decoder.begin, ids_BT, mask_BT), steps]


def _room(decoder: Decoder, prompt: Sequence[int], max_new: int, name: str) -> int:
    """Tokens that may follow a prompt."""
    if not prompt:
        raise TrimtuneError(f"{name} has no token.", "A language model goes on from at least one.", "Ask something.")
    if len(prompt) >= decoder.context:
        raise TrimtuneError(f"{name} has {len(prompt)} tokens.",
                            f"Allowed: fewer than {decoder.context}, which the model can hold together with its answer.",
                            "Shorten it.")
    return min(max_new, decoder.context - len(prompt))


def _greedy(decoder: Decoder, prompts: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    """The best next token of each row, [B], without end. Rows that have ended go on: none sees another."""
    logits_BV = decoder.begin(*padded(prompts, left=True))
    while True:
        best_B = _best(logits_BV)
        yield best_B
        logits_BV = decoder.step(best_B)


def _greedy_uncached(decoder: Decoder, prompts: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    rows = [list(prompt) for prompt in prompts]
    while True:
        ids_BT, mask_BT = padded(rows, left=False)
        best_B = _best(decoder.logits(ids_BT, mask_BT)[np.arange(len(rows)), mask_BT.sum(1) - 1])
        yield best_B
        for row, token in zip(rows, best_B.tolist(), strict=True):
            if len(row) < decoder.context:
                row.append(token)


def _best(logits_BV: np.ndarray) -> np.ndarray:
    """Raises StepFailed where a maximum is no finite number; an argmax over NaN would otherwise pass for a token."""
    best_B: np.ndarray = logits_BV.argmax(-1)
    if not np.isfinite(logits_BV[np.arange(len(best_B)), best_B]).all():
        raise StepFailed("it gives logits that are not finite numbers")
    return best_B
