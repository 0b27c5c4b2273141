"""Log-likelihoods of rows under a decoder, from passes without a cache; float32 logits, summed in float64."""

from __future__ import annotations

import numpy as np

from trimtune.engines._decoding import Decoder, padded
from trimtune.errors import StepFailed
from trimtune.tasks._chunked_loss import IGNORED

_CHUNK = 128
"""tokens whose probabilities are computed together"""


def of(decoder: Decoder, ids: list[list[int]], targets: list[list[int]], vocabulary: int, batch_size: int,
       logits_mb: float) -> list[float]:
    """Each row's negative log-likelihood, in nats; rows of like length pass together, as many as their logits leave room for."""
    together = max(1, min(batch_size, int(1e6 * logits_mb / (4 * max(map(len, ids)) * vocabulary))))
    found = [0.0] * len(ids)
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    for start in range(0, len(order), together):
        batch = order[start:start + together]
        logits_BTV = decoder.logits(*padded([ids[row] for row in batch], left=False))
        for row, value in zip(batch, negative_log_likelihood(logits_BTV, [targets[row] for row in batch]), strict=True):
            found[row] = value
    return found


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
