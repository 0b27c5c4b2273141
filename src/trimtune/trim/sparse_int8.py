"""sparse_int8: int8, and zeros are not stored; a weight matrix lies on disk as one bit per weight and the int8 that aren't zero.

Use it behind `prune_weights`, where every megabyte counts and int8 answers well enough; not for more speed or less memory than
int8 has: on load the zeros are put back, and products are those of `int8`. Below 1 zero in 8 weights it would be larger.
MiniLM with 80% zeros is 16.6 MB so, 23.8 MB in int8.

    stored bits per weight = 1 + (1 − s) · 8       s the share of zeros; embeddings stay int8 with all their weights

Source: Han, Mao & Dally 2016 (arXiv 1510.00149), sections 2 and 3: what pruning leaves is quantized, and only that is stored
(here a bit per weight says where it belongs). See `sparse` and `int8`. The answers are those of int8, bit for bit. Packed.

The engine realizes it, so it comes last in a chain of trims; the folder that it hands on is the source's, untouched. It refuses
a model that would not become smaller than int8.
"""

from __future__ import annotations

from trimtune.trim import _handed_on

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = False
NUMERICS: str | None = "sparse_int8"
Config, run = _handed_on.Config, _handed_on.run
