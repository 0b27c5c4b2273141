"""What tuning cost a language model in general language: the perplexity of a general text, beside the untuned model's.

    general_perplexity = exp(Σ nll / Σ tokens),   forgetting = (Σ nll − Σ nll of the untuned model) / Σ tokens, in nats per token

A forgetting of 0.1 says that the text surprises the candidate by a factor of exp(0.1) = 1.11 more per token than it surprises the
model as it came, which is asked once, in PyTorch and float32; below 0, that tuning helped there too. The text is the study's
`data.general` (text, or rows of any kind that language models are tuned with), else some 2,100 words of English prose of the 18th
and 19th century that come with the package. Each paragraph is read by itself, without prompt and template, in pieces of at most
`tokens` tokens; nothing of it is tuned on. When to use: where one model serves for more than its tuning rows, as in `require:
{forgetting: "<= 0.1"}`. Not as a figure of quality in other languages or fields than the text's: give your own.

Intervals: bootstrap over paragraphs, for forgetting of the two models' differences on the same ones.

Source: McCloskey and Cohen 1989, "Catastrophic interference in connectionist networks", for what is meant; Luo et al. 2023 (arXiv
2308.08747) for tuned language models, there seen by tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimtune import parts
from trimtune.engines._decoding import Decoder
from trimtune.engines._torch_decoder import TorchDecoder
from trimtune.measure import _likelihood
from trimtune.measure._intervals import bootstrap
from trimtune.measure._lm_subject import LMSubject
from trimtune.records import Quantity, Reading, Study
from trimtune.study import general
from trimtune.study.turns import TEXT, Turn
from trimtune.tasks._chunked_loss import IGNORED
from trimtune.tasks._perplexity import perplexity
from trimtune.tasks._rendering import Rendering

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASKS = ("causal_lm",)
READINGS = {
    "general_perplexity": Quantity("1", "lower", "General perplexity", "Perplexity of general text that nothing was tuned on."),
    "forgetting": Quantity("nats", "lower", "Forgetting",
                           "How much more a token of general text surprises it than the untuned model, in nats; below 0: less.")}
ROUNDS = 1


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    texts: tuple[str, ...] = Field((), description="paragraphs of general text, those of data.general; none: the built-in sample")
    tokens: int = Field(128, ge=2, description="of a piece, at most; fewer where fit.max_length is less")
    batch_size: int = Field(16, ge=1, description="pieces read together, fewer where their logits would be large")
    logits_mb: float = Field(256.0, gt=0, description="memory that the logits of a batch may take, in MB")
    seed: int = Field(0, description="of the bootstrap")


def settings(study: Study) -> dict[str, Any]:
    """What of the study decides the config: the text itself, so that another one is another measurement."""
    return {"texts": general.read(Path(study.data.general) if study.data.general else None)}


def sample(subject: LMSubject, config: Config) -> dict[str, Any]:
    """Of each paragraph its `nll` in nats and the `tokens` that it counts: all but the first."""
    return _taken(subject.decoder, subject.tokenizer, subject.max_length, config)


def reference(base: Path, config: Config, task: str, max_length: int) -> dict[str, Any]:
    """The same of the untuned model."""
    part = parts.load("task", task)
    return _taken(TorchDecoder(part.load_model(base)), part.load_tokenizer(base), max_length, config)


def _taken(decoder: Decoder, tokenizer: PreTrainedTokenizerBase, max_length: int, config: Config) -> dict[str, Any]:
    rendering, length = Rendering(tokenizer, "text"), min(config.tokens, max_length)
    pieces: list[list[int]] = []
    texts: list[int] = []
    for number, text in enumerate(config.texts or general.read(None)):
        ids = rendering.asked((Turn(TEXT, text),))
        pieces += [ids[start:start + length] for start in range(0, len(ids) - 1, length)]
        texts += [number] * (len(pieces) - len(texts))
    if not pieces:
        return {"nll": [], "tokens": []}
    nll = _likelihood.of(decoder, pieces, [[IGNORED, *piece[1:]] for piece in pieces], len(tokenizer), config.batch_size,
                         config.logits_mb)
    nll_N, tokens_N = (np.bincount(texts, weights=column) for column in (nll, [len(piece) - 1 for piece in pieces]))
    counts_N = tokens_N > 0  # a heading of one token foretells nothing
    return {"nll": nll_N[counts_N].tolist(), "tokens": [int(count) for count in tokens_N[counts_N]]}


def summarize(samples: list[dict[str, Any]], config: Config, reference: dict[str, Any] | None = None) -> dict[str, Reading]:
    """Both readings; `n` counts paragraphs.

    Args:
        reference: of the untuned model; `lacking` says why there is none.
    """
    taken, untuned = samples[0], reference or {"lacking": "the untuned model was not asked"}
    if not sum(taken["tokens"]):
        return {name: _reading(name, None, 0, (None, None), "the general text has too few tokens") for name in READINGS}
    own_N2 = _sums(taken)
    low, high = bootstrap(own_N2, _mean, config.seed)
    found = [_reading("general_perplexity", perplexity(_total(own_N2)), len(own_N2), (perplexity(low), perplexity(high)))]
    if untuned.get("tokens") != taken["tokens"]:
        why = untuned.get("lacking", "the untuned model reads the text as other tokens")
        return {reading.name: reading for reading in (*found, _reading("forgetting", None, 0, (None, None), why))}
    other_N2 = _sums(untuned)
    lost_N2 = np.stack([own_N2[:, 0] - other_N2[:, 0], own_N2[:, 1]], axis=1)
    found.append(_reading("forgetting", _total(lost_N2), len(lost_N2), bootstrap(lost_N2, _mean, config.seed),
                          f"perplexity {perplexity(_total(other_N2)):.4g} of the untuned model"))
    return {reading.name: reading for reading in found}


def _sums(taken: dict[str, Any]) -> np.ndarray:
    return np.stack([taken["nll"], taken["tokens"]], axis=1).astype(float)


def _total(sums_N2: np.ndarray) -> float:
    return float(_mean(sums_N2.sum(axis=0)[None])[0])


def _mean(sums_B2: np.ndarray) -> np.ndarray:
    mean_B: np.ndarray = sums_B2[:, 0] / sums_B2[:, 1]
    return mean_B


def _reading(name: str, value: float | None, n: int, ends: tuple[float | None, float | None], note: str = "") -> Reading:
    unit, better, *_ = READINGS[name]
    return Reading(name=name, value=value, unit=unit, better=better, n=n, low=ends[0], high=ends[1],
                   interval="bootstrap over paragraphs 95%" if value is not None else "", note=note)
