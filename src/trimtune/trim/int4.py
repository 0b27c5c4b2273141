"""int4: weights of linear layers in 4 bits, packed two to a byte, scaled by groups.

Use it when a model must be small, or a language model fast where reading its weights is what a token costs (one row at a time on
a CPU); not for small models, whose answers change a lot (measured in the report), nor where 8 bits are small and fast enough.

    W[n, k] ≈ s[n, g(k)] · q[n, k],  q ∈ {-8 … 7},  g(k): the group of 32 or 64 neighboring weights of a row

Source: Dettmers & Zettlemoyer 2023 (arXiv 2212.09720), section 2, for 4 bits and small blocks as the best use of a model's bits.
W is [N, K]; products are summed over K in 8-bit integers or floats, as the engine's kernels do. Norms stay in floating point,
embeddings and the output layer in 8 bits or more, where the engine can; a classifier's head in 8 bits or in float. Packed: the
bytes of these layers shrink to a sixth or less.

The engine realizes it, so it comes last in a chain of trims; the folder that it hands on is the source's, untouched.
"""

from __future__ import annotations

from typing import Any

from trimtune.trim import _handed_on

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = False
NUMERICS: str | None = "int4"
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (90, ({},))
Config, run = _handed_on.Config, _handed_on.run
