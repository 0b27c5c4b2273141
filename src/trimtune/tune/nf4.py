"""NF4: weights in 4 bits that suit normally distributed numbers, two to a byte, one scale per block of 64.

    w ≈ s_b · v[c],  s_b = max_block |w|,  c = the nearest of 16 values v in -1 … 1 (quantiles of a normal distribution, and zero)

Source: Dettmers et al. 2023 (arXiv 2305.14314), section 3 and appendix E. Blocks run over the weight as it lies in memory; the
last one is filled up with zeros. The first of two values has a byte's upper half, which is also the order of bitsandbytes.

Double quantization, from the same section: scales in 8 bits around their mean, one step per 256 of them, 4.13 bits per weight
instead of 4.5. The paper has 8-bit floats there, this has integers.

Unpacking is what every pass of every layer pays. A byte is looked up as a whole, in a table of 256 pairs that are read as one
8-byte number each: about 0.6 ns per weight on a core of Zen 4. Looking up halves takes 7 to 9 ns.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch

VALUES = (-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
          -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
          0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0)
BLOCK, GROUP = 64, 256
"""weights per scale; scales per step of their own, where they are quantized too"""
_BYTES_AT_ONCE = 2**17
"""bytes that are packed or unpacked together: what that needs beside the result stays in the cache"""


class Scales(NamedTuple):
    """Scales of blocks: float32 [blocks], or int8 [blocks] with float32 steps [groups] and their mean []."""

    codes: torch.Tensor
    steps: torch.Tensor | None = None
    mean: torch.Tensor | None = None

    def floats(self) -> torch.Tensor:
        """float32 [blocks], never negative."""
        if self.steps is None or self.mean is None:
            return self.codes
        return (self.codes * self.steps.repeat_interleave(GROUP)[:len(self.codes)] + self.mean).clamp_min(0)


def quantize(weight: torch.Tensor, double: bool = False) -> tuple[torch.Tensor, Scales]:
    """A float32 weight of any shape as bytes uint8 [blocks · 32], two values each, and its scales."""
    import torch

    flat = weight.detach().float().flatten()
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK))
    scales = Scales(flat.view(-1, BLOCK).abs().amax(1))
    scales = _doubled(scales.codes) if double else scales
    limits = [(low + high) / 2 for low, high in pairwise(VALUES)]
    packed = torch.empty(len(flat) // 2, dtype=torch.uint8, device=weight.device)
    for out, values, scale in _pieces(packed, flat, scales.floats()):
        near = values.view(-1, BLOCK) / scale.masked_fill(scale == 0, 1)[:, None]
        codes = torch.zeros(near.shape, dtype=torch.uint8, device=weight.device)
        for limit in limits:
            codes += near > limit
        high, low = codes.view(-1, 2).unbind(1)
        torch.bitwise_or(high << 4, low, out=out)
    return packed, scales


def dequantize(packed: torch.Tensor, scales: Scales, count: int, dtype: torch.dtype) -> torch.Tensor:
    """The first `count` weights, [count] in `dtype`: products in float32, rounded once."""
    import torch

    if packed.is_cuda and importlib.util.find_spec("bitsandbytes"):
        return dequantize_by_bitsandbytes(packed, scales, count, dtype)
    values, pairs = torch.empty(2 * len(packed), dtype=dtype, device=packed.device), _pairs(packed.device)
    for piece, out, scale in _pieces(packed, values, scales.floats()):
        found = pairs.index_select(0, piece.int()).view(torch.float32).view(-1, BLOCK)
        out.view(-1, BLOCK).copy_(found.mul_(scale[:, None]))
    return values[:count]


def dequantize_reference(packed: torch.Tensor, scales: Scales, count: int, dtype: torch.dtype) -> torch.Tensor:
    """The same in one line each: halves apart, looked up, scaled."""
    import torch

    codes = torch.stack([packed >> 4, packed & 15], 1).flatten().long()
    values = torch.tensor(VALUES, device=packed.device)[codes].view(-1, BLOCK) * scales.floats()[:, None]
    return values.flatten()[:count].to(dtype)


def dequantize_by_bitsandbytes(packed: torch.Tensor, scales: Scales, count: int, dtype: torch.dtype) -> torch.Tensor:
    """The same by the kernel of bitsandbytes, which GPUs run in one pass. Tried with its CPU kernel; not yet run on a GPU."""
    import torch
    from bitsandbytes.functional import QuantState, dequantize_4bit, get_4bit_type

    state = QuantState(absmax=scales.floats(), shape=torch.Size([2 * len(packed)]), dtype=dtype, blocksize=BLOCK,
                       quant_type="nf4", code=get_4bit_type("nf4", device=packed.device))
    values: torch.Tensor = dequantize_4bit(packed[:, None], state)
    return values.flatten()[:count]


def _doubled(scales: torch.Tensor) -> Scales:
    import torch

    mean = scales.mean()
    apart = torch.nn.functional.pad(scales - mean, (0, -len(scales) % GROUP)).view(-1, GROUP)
    steps = (apart.abs().amax(1) / 127).clamp_min(1e-30)
    codes = (apart / steps[:, None]).round().to(torch.int8).flatten()[:len(scales)]
    return Scales(codes.clone(), steps, mean)


def _pieces(packed: torch.Tensor, values: torch.Tensor, scales: torch.Tensor) -> list[tuple[torch.Tensor, ...]]:
    """Bytes with their weights and their scales, some at a time."""
    cut = (packed.split(_BYTES_AT_ONCE), values.split(2 * _BYTES_AT_ONCE), scales.split(2 * _BYTES_AT_ONCE // BLOCK))
    return list(zip(*cut, strict=True))


@cache
def _pairs(device: torch.device) -> torch.Tensor:
    """[256]: for each byte its two values in float32, read as one int64."""
    import torch

    values = torch.tensor(VALUES, device=device)
    return torch.stack([values.repeat_interleave(16), values.repeat(16)], 1).view(torch.int64).flatten()
