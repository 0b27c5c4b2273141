"""sparse: zeros are not stored; a weight matrix lies on disk as one bit per weight and the weights that aren't zero.

Use it behind `prune_weights`, where the size of what ships counts; not for speed or memory: on load the zeros are put back,
and products are those of the dense model. It pays from 1 zero in 32 weights (float32) or in 16 (bf16). The embeddings keep all
their weights: MiniLM with 80% zeros is 59.0 MB in float32 and 30.5 MB in bf16 (dense 91.6 and 46.2), which `int8` alone
undercuts, without a zero (23.8 MB). `sparse_int8` joins the two.

    stored bits per weight = 1 + (1 − s) · b       s the share of zeros, b the bits of a weight: 32, or 16 in bf16

Source: after Han, Mao & Dally 2016 (arXiv 1510.00149), section 2, who store the distance to the next weight; a bit per weight
is as short up to 80% zeros with their 5 bits, and needs no search. Lossless, bit for bit: the answers are those of the same
folder stored densely, in the number format that the engine runs. Packed: the bytes on disk shrink, those in memory don't.

The engine realizes it, so it comes last in a chain of trims; the folder that it hands on is the source's, untouched. Engines
that compile a graph of their own hold dense weights and have no such form. It refuses a model that would not become smaller.
"""

from __future__ import annotations

from trimtune.trim import _handed_on

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = False
NUMERICS: str | None = "sparse"
Config, run = _handed_on.Config, _handed_on.run
