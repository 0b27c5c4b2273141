"""bf16: weights stored in 16 bits and run in bf16 (8 significant bits), whatever this machine's clock would have chosen.

Use it when half the size is wanted for sure, or the machine that answers has bf16 units and this one has none; not where
the engine's own `precision: auto` may decide, which takes bf16 only where it is clearly faster here, nor on CPUs without bf16
products, where it is slower than float32 (only measuring tells).

    w ≈ ± 1.m · 2^e,  7 bits of m, the exponents of float32; |Δw| ≤ 2⁻⁸ |w|, rounded to the nearest

Source: Kalamkar et al. 2019 (arXiv 1905.12322), section 3. Nothing is calibrated and no training row is needed: exponents
reach as far as those of float32. Packed: the bytes on disk shrink to a half. How products are summed, and what an engine
stores in those 16 bits, is its own affair (`trimtune explain` with its name).

The engine realizes it, so it comes last in a chain of trims; the folder that it hands on is the source's, untouched.
"""

from __future__ import annotations

from trimtune.trim import _handed_on

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = False
NUMERICS: str | None = "bf16"
Config, run = _handed_on.Config, _handed_on.run
