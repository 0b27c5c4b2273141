"""Paired comparison of language models on the test prompts whose rows all of them scored.

With ℓ_r the log-likelihood of the learned tokens of prompt r's rows under one candidate minus that under the other, and c_r
their number, the difference of two scores is Σ ℓ_r / Σ c_r nats per token. Its standard error is that of a ratio of means,
√(n · Var(ℓ_r − d · c_r)) / Σ c_r (Cochran 1977, section 6.4), and t = d / error is compared with Student's distribution of
n − 1 degrees of freedom. A difference of less than 0.001 nats per token, 0.1% in perplexity, counts as none however sure it
is: engines round differently, always in the same places. Tokens of one row depend on each other, and rows of one prompt do:
prompts are counted. A plain text is a prompt by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trimtune.choose.compare import ALPHA, Compared, Difference
from trimtune.errors import TrimtuneError
from trimtune.measure._intervals import ratio_error
from trimtune.tasks._perplexity import SAME


@dataclass(frozen=True)
class Likelihoods(Compared):
    """The score is the mean log-likelihood of the learned tokens; perplexity is exp(−score)."""

    row_KN: np.ndarray
    counts_N: np.ndarray

    def difference(self, first: str, second: str) -> Difference:
        i, j = self.names.index(first), self.names.index(second)
        return paired(self.row_KN[i] - self.row_KN[j], self.counts_N)


def likelihoods(rows: Mapping[str, Sequence[tuple[float, int]]], names: Sequence[str]) -> Likelihoods:
    """Compare all pairs of `names`.

    Args:
        rows: candidate → of each prompt's rows the negative log-likelihood of their learned tokens, in nats, and their number.

    Raises:
        TrimtuneError: candidates were not scored on the same tokens.
    """
    counts = [count for _, count in rows.get(names[0], ())]
    bad = next((name for name in names if [count for _, count in rows.get(name, ())] != counts), None)
    if bad is not None or not counts:
        raise TrimtuneError(f"The log-likelihoods of {bad or 'the candidates'} don't match the {len(counts)} test prompts.",
                            "Each measured candidate needs one for each prompt, over the same tokens.", "Run the study again.")
    row_KN = -np.array([[value for value, _ in rows[name]] for name in names], dtype=float)
    counts_N = np.asarray(counts, dtype=float)
    found = [[paired(one - other, counts_N) for other in row_KN] for one in row_KN]
    better_KK = np.array([[each.value > 0 and not each.tied for each in line] for line in found])
    return Likelihoods(tuple(names), row_KN.sum(axis=1) / counts_N.sum(), better_KK, len(counts), row_KN, counts_N)


def paired(differences_N: np.ndarray, counts_N: np.ndarray) -> Difference:
    """The difference of two scores from what differs in each row, in nats per token."""
    from scipy.special import stdtr, stdtrit

    n, tokens = len(counts_N), counts_N.sum()
    value = float(differences_N.sum() / tokens)
    if n < 2:
        return Difference(value, -np.inf, np.inf, 1.0, n)
    error = ratio_error(differences_N, counts_N)
    reach = float(stdtrit(n - 1, 1 - ALPHA / 2)) * error
    if abs(value) < SAME:
        return Difference(value, min(value - reach, 0.0), max(value + reach, 0.0), 1.0, n)
    p = 2 * float(stdtr(n - 1, -abs(value) / error)) if error else 0.0
    return Difference(value, value - reach, value + reach, p, n)
