"""From texts to labels: tokenizer and engine of one bundle, in batches of rows of like length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError

if TYPE_CHECKING:
    import numpy as np

    Encode = Callable[[Sequence[str]], dict[str, np.ndarray]]
    Run = Callable[[dict[str, np.ndarray]], np.ndarray]

BATCH = 32
CHUNK = 1024
"""rows that are taken from a stream, sorted by length and answered at a time"""


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row's answer. `probabilities` holds every label's, in the order of the labels; they sum to 1."""

    label: str
    probability: float
    probabilities: dict[str, float]


class Predictor:
    """What `trimtune.load(bundle)` returns: call it with texts.

    >>> model = trimtune.load("bundle/")                 # doctest: +SKIP
    >>> model(["my invoice is wrong"])[0].label          # doctest: +SKIP
    'billing_question'
    """

    def __init__(self, run: Run, encode: Encode, manifest: dict[str, Any]) -> None:
        self._run, self._encode = run, encode
        self.manifest = manifest
        self.labels: tuple[str, ...] = tuple(manifest["labels"])

    def __call__(self, texts: Iterable[str]) -> list[Prediction]:
        """The answers in the order of the texts. An empty text is answered too: by what the model makes of nothing.

        Raises:
            TrimtuneError: `texts` is one bare text, or holds something that is no text (said with its position).
        """
        return list(self.stream(texts))

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Logits [N, C], float32, of N ≥ 1 texts in their order."""
        return logits_of(self._run, self._encode, texts)

    def stream(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """The same without holding more than 1,024 rows: for files and pipes of any length."""
        if isinstance(texts, str):
            raise TrimtuneError(f"One bare text was given: {texts[:40]!r}.", "Allowed: a list (or any iterable) of texts.",
                                "Put it into a list: model([text]).")
        rows, done = iter(texts), 0
        while chunk := list(islice(rows, CHUNK)):
            for index, text in enumerate(chunk):
                if not isinstance(text, str):
                    raise TrimtuneError(f"Text {done + index} is no text but {type(text).__name__}: {str(text)[:40]!r}.",
                                        "Allowed: str.", "Leave missing rows out, or give '' for them.")
            done += len(chunk)
            for probabilities_C in softmax(self.logits(chunk)):
                best = int(probabilities_C.argmax())
                yield Prediction(self.labels[best], float(probabilities_C[best]),
                                 dict(zip(self.labels, probabilities_C.tolist(), strict=True)))


def logits_of(run: Run, encode: Encode, texts: Sequence[str], batch_size: int = BATCH) -> np.ndarray:
    """Logits [N, C] of N ≥ 1 texts in their own order; rows of like length share a batch, so little is padded.

    The batches are those of measure/quality.py: an engine whose int8 scales depend on a row's neighbors answers alike.
    """
    import numpy as np

    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    batches = [order[start:start + batch_size] for start in range(0, len(order), batch_size)]
    # a tokenizer without start and end marks makes no token of an empty text, and an engine can't run on none
    parts = [run(encode([texts[index] if texts[index].strip() else " " for index in batch])) for batch in batches]
    logits_NC = np.empty((len(texts), parts[0].shape[1]), dtype=np.float32)
    for batch, part_BC in zip(batches, parts, strict=True):
        logits_NC[batch] = part_BC
    return logits_NC


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    """exp(x - max x) / Σ exp(x - max x) over the last axis, in float64."""
    import numpy as np

    shifted = logits_NC.astype(np.float64)
    shifted -= shifted.max(axis=-1, keepdims=True)
    weights: np.ndarray = np.exp(shifted)
    return weights / weights.sum(axis=-1, keepdims=True)
