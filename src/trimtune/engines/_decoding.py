"""What an engine for language models gives to run: a decoder, and greedy answers with it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

import numpy as np


class Decoder(Protocol):
    """A language model, loaded. Tokens and masks are int64, logits float32, numpy."""

    def logits(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """[B, T, V] of rows padded on the right, in one pass."""

    def begin(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> np.ndarray:
        """Take in prompts padded on the left; [B, V] for the token that comes next."""

    def step(self, tokens_B: np.ndarray) -> np.ndarray:
        """Take in one token of each row; [B, V] for the next."""

    def cache_bytes(self) -> int:
        """What the keys and values of the rows at hand take."""


class Answer(NamedTuple):
    tokens: list[int]
    ended: bool


def generate(decoder: Decoder, prompts: Sequence[Sequence[int]], ends: Collection[int], max_new: int) -> list[Answer]:
    """Greedy answers to all prompts together, each up to its end token (which is left out) or `max_new` tokens."""
    width = max(map(len, prompts))
    ids_BT, mask_BT = np.zeros((len(prompts), width), dtype=np.int64), np.zeros((len(prompts), width), dtype=np.int64)
    for row, prompt in enumerate(prompts):
        ids_BT[row, width - len(prompt):], mask_BT[row, width - len(prompt):] = prompt, 1
    answers: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    logits_BV = decoder.begin(ids_BT, mask_BT)
    for count in range(max_new):
        tokens_B = logits_BV.argmax(axis=1)
        for row, token in enumerate(tokens_B.tolist()):
            ended[row] = ended[row] or token in ends
            if not ended[row]:
                answers[row].append(token)
        if all(ended) or count + 1 == max_new:
            break
        logits_BV = decoder.step(tokens_B)
    return [Answer(*found) for found in zip(answers, ended, strict=True)]
