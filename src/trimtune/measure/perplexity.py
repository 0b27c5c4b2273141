"""How well the test rows are foreseen: perplexity, the number of equally likely tokens that the model hesitates between.

    perplexity = exp(Σ nll / Σ learned tokens),   nll = -log softmax(logits_BTV)[t-1, token t], natural logarithm

Over the learned tokens of the test rows, those that fits learn from too. When to use: to compare candidates of one tokenizer;
not across tokenizers, whose tokens hold different amounts of text. Computed from float32 logits, summed in float64. The
interval is a bootstrap over rows; rows that share a prompt are drawn together, since they are no independent evidence. Of more
than `rows` test rows some are scored, the same of every candidate: prompts evenly spaced over the file, each with all its rows.

A limit may hold it against the candidate's parent, the same method and engine without trims: `require: {perplexity: "<= parent +
2%"}`. With `surely` behind it the whole 95% interval of the paired difference must be inside.

Source: Jelinek et al. 1977, "Perplexity – a measure of the difficulty of speech recognition tasks".
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimtune.measure import _likelihood
from trimtune.measure._intervals import bootstrap
from trimtune.measure._lm_subject import LMSubject
from trimtune.records import Quantity, Reading
from trimtune.tasks._perplexity import perplexity

TASKS = ("causal_lm",)
READINGS = {
    "perplexity": Quantity("1", "lower", "Perplexity",
        "The number of equally likely tokens that the model hesitates between at each token of the test rows.")}
ROUNDS = 1


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    rows: int = Field(1000, ge=1, description="test rows scored, at most; of more, prompts evenly spaced with all their rows")
    batch_size: int = Field(16, ge=1, description="rows answered together, fewer where their logits would be large")
    logits_mb: float = Field(256.0, gt=0, description="memory that the logits of a batch may take, in MB")
    seed: int = Field(0, description="of the bootstrap")


def sample(subject: LMSubject, config: Config) -> dict[str, Any]:
    """Of each scored row, in the file's order: `nll` in nats, learned `tokens`, and the `group` of rows that share its prompt."""
    rows = subject.inputs
    numbers = list(dict.fromkeys(rows.numbers))
    kept = spaced([subject.groups[number] for number in numbers], config.rows)
    scored = [row for row, number in enumerate(rows.numbers) if subject.groups[number] in kept]
    sums = _likelihood.of(subject.decoder, [rows.ids[row] for row in scored], [rows.targets[row] for row in scored],
                       len(subject.tokenizer), config.batch_size, config.logits_mb)
    nll = {number: 0.0 for number in numbers if subject.groups[number] in kept}
    tokens = dict.fromkeys(nll, 0)
    for row, value in zip(scored, sums, strict=True):
        nll[rows.numbers[row]] += value
        tokens[rows.numbers[row]] += rows.counts[row]
    left = [f"{len(nll):,} of {len(numbers):,} test rows, evenly spaced"] if len(nll) < len(numbers) else []
    return {"nll": list(nll.values()), "tokens": list(tokens.values()),
            "group": [subject.groups[number] for number in nll], "notes": [*rows.notes, *left]}


def spaced(groups: list[int], most: int) -> set[int]:
    """Groups evenly spaced over the file whose rows are `most` together, or fewer; one at least.

    Args:
        groups: each row's group, numbered in the order of their first rows.
    """
    sizes = Counter(groups)
    names = sorted(sizes)
    for count in range(min(len(names), most), 0, -1):
        kept = [names[at * len(names) // count] for at in range(count)]
        if count == 1 or sum(sizes[name] for name in kept) <= most:
            return set(kept)
    return set()


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """The perplexity; `n` counts rows."""
    taken = samples[0]
    sums_N2, grouped_G2 = _sums(taken), _grouped(taken)
    low, high = bootstrap(grouped_G2, lambda sums_B2: sums_B2[:, 0] / sums_B2[:, 1], config.seed)
    nll, tokens = sums_N2.sum(axis=0)
    unit, better, *_ = READINGS["perplexity"]
    value, low, high = (perplexity(mean) for mean in (nll / tokens, low, high))
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
