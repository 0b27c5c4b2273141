"""fp16: weights stored in 16 bits, as IEEE half precision (11 significant bits).

Use it where half the size is wanted and answers must hardly move, or on GPUs, which multiply it fast; not for speed on CPUs,
where most engines unpack it to float32 first, nor for weights beyond 65,504. Where bf16 runs fast, `bf16` is as small.

    w ≈ ± 1.m · 2^e,  10 bits of m, e from −14 to 15, and less exact below 2⁻¹⁴;  |Δw| ≤ 2⁻¹¹ |w|, rounded to the nearest

Source: Micikevicius et al. 2018 (arXiv 1710.03740), section 3, for what its smaller range leaves out. Nothing is calibrated and
no training row is needed. Packed or stored: the bytes on disk shrink to a half; whether products run in it is the engine's own
affair (`trimtune explain` with its name).

The engine realizes it, so it comes last in a chain of trims; the folder that it hands on is the source's, untouched.
"""

from __future__ import annotations

from trimtune.trim import _handed_on

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = False
NUMERICS: str | None = "fp16"
Config, run = _handed_on.Config, _handed_on.run
