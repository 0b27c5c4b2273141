"""The perplexity of a mean negative log-likelihood."""

from __future__ import annotations

import math

SAME = 1e-3
"""nats per token below which nobody is better, 0.1% in perplexity; what `ship` calls the same"""
_MOST = 700.0
"""nats: e to more than this is no float; no model that is of any use comes near"""


def perplexity(nats: float) -> float:
    """exp(nats per token), always finite; or the ratio of two perplexities from the difference of their logarithms."""
    return math.exp(min(nats, _MOST))
