"""How well the test rows are foreseen: perplexity, the number of equally likely tokens that the model hesitates between.

    perplexity = exp(Σ nll / Σ learned tokens),   nll = -log softmax(logits_BTV)[t-1, token t], natural logarithm

Over the learned tokens of the test rows, those that fits learn from too. When to use: to compare candidates of one tokenizer;
not across tokenizers, whose tokens hold different amounts of text. Computed from float32 logits, summed in float64. The
interval is a bootstrap over rows; rows that share a prompt are drawn together, since they are no independent evidence.

Source: Jelinek et al. 1977, "Perplexity – a measure of the difficulty of speech recognition tasks".
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimtune.engines._decoding import padded
from trimtune.errors import StepFailed
from trimtune.measure._intervals import bootstrap
from trimtune.measure._lm_subject import LMSubject
from trimtune.records import Better, Reading
from trimtune.tasks._chunked_loss import IGNORED

TASKS = ("causal_lm",)
READINGS: dict[str, tuple[str, Better]] = {"perplexity": ("1", "lower")}
ROUNDS = 1
_CHUNK = 128
"""tokens whose probabilities are computed together"""
_MOST = 700.0
"""nats per token beyond which exp() overflows; no model that is of any use comes near"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    batch_size: int = Field(16, ge=1, description="rows answered together, fewer where their logits would be large")
    logits_mb: float = Field(256.0, gt=0, description="memory that the logits of a batch may take, in MB")
    seed: int = Field(0, description="of the bootstrap")


def sample(subject: LMSubject, config: Config) -> dict[str, Any]:
    """Of each test row, in the file's order: `nll` in nats, learned `tokens`, and the `group` of rows that share its prompt."""
    rows = subject.inputs
    longest, vocabulary = max(map(len, rows.ids)), len(subject.tokenizer)
    together = max(1, min(config.batch_size, int(1e6 * config.logits_mb / (4 * longest * vocabulary))))
    found = dict.fromkeys(rows.numbers, 0.0)
    order = sorted(range(len(rows.ids)), key=lambda row: -len(rows.ids[row]))
    for start in range(0, len(order), together):
        batch = order[start:start + together]
        ids_BT, mask_BT = padded([rows.ids[row] for row in batch], left=False)
        sums = negative_log_likelihood(subject.decoder.logits(ids_BT, mask_BT), [rows.targets[row] for row in batch])
        for row, value in zip(batch, sums, strict=True):
            found[rows.numbers[row]] += value
    tokens = dict.fromkeys(found, 0)
    for number, count in zip(rows.numbers, rows.counts, strict=True):
        tokens[number] += count
    return {"nll": list(found.values()), "tokens": list(tokens.values()), "group": [subject.groups[number] for number in found],
            "notes": rows.notes}


def negative_log_likelihood(logits_BTV: np.ndarray, targets: list[list[int]]) -> list[float]:
    """Each row's sum over its learned tokens, in nats; `targets[b][t]` is predicted by the logits at t-1.

    Raises:
        StepFailed: the logits are not [B, T, V], or not finite where they count.
    """
    if logits_BTV.ndim != 3 or logits_BTV.shape[:2] != (len(targets), max(map(len, targets))):
        raise StepFailed(f"it gives logits of shape {list(logits_BTV.shape)} for {len(targets)} rows of "
                         f"{max(map(len, targets))} tokens")
    at = np.array([(row, place - 1, token) for row, target in enumerate(targets) for place, token in enumerate(target)
                   if token != IGNORED], dtype=np.int64).reshape(-1, 3)
    if len(at) and at[:, 2].max() >= logits_BTV.shape[2]:
        raise StepFailed(f"it knows {logits_BTV.shape[2]} tokens, and a test row has token {at[:, 2].max()}")
    sums = np.zeros(len(targets))
    for start in range(0, len(at), _CHUNK):
        row_N, place_N, token_N = at[start:start + _CHUNK].T
        logits_NV = logits_BTV[row_N, place_N].astype(np.float32, copy=False)
        top_N = logits_NV.max(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            spread_N = np.exp(logits_NV - top_N[:, None]).sum(axis=1, dtype=np.float64)
            nll_N = np.log(spread_N) + top_N - logits_NV[np.arange(len(token_N)), token_N].astype(np.float64)
        if not np.isfinite(nll_N).all():
            raise StepFailed("it gives logits that are not finite numbers")
        np.add.at(sums, row_N, nll_N)
    return [float(value) for value in sums]


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """The perplexity; `n` counts rows."""
    taken = samples[0]
    sums_N2, grouped_G2 = _sums(taken), _grouped(taken)
    low, high = bootstrap(grouped_G2, lambda sums_B2: sums_B2[:, 0] / sums_B2[:, 1], config.seed)
    nll, tokens = sums_N2.sum(axis=0)
    unit, better = READINGS["perplexity"]
    value, low, high = (math.exp(min(mean, _MOST)) for mean in (nll / tokens, low, high))
    unlike = "rows" if len(grouped_G2) == len(sums_N2) else f"{len(grouped_G2)} prompts"
    return {"perplexity": Reading(name="perplexity", value=value, unit=unit, better=better, n=len(sums_N2), low=low, high=high,
                                  interval=f"bootstrap over {unlike} 95%", note="; ".join(taken["notes"]))}


def by_row(samples: list[dict[str, Any]]) -> list[tuple[float, int]]:
    """(nll, tokens) of each prompt's rows, for comparing candidates: rows of one prompt are no independent draws."""
    return [(float(nll), int(tokens)) for nll, tokens in _grouped(samples[0])]


def _sums(taken: dict[str, Any]) -> np.ndarray:
    return np.stack([taken["nll"], taken["tokens"]], axis=1).astype(float)


def _grouped(taken: dict[str, Any]) -> np.ndarray:
    """[G, 2]: the sums of each prompt's rows."""
    grouped_G2 = np.stack([np.bincount(taken["group"], weights=column) for column in _sums(taken).T], axis=1)
    return grouped_G2[grouped_G2[:, 1] > 0]
