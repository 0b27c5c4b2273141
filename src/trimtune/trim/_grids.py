"""The grids of 8 and 4 bits that PyTorch's engines store linear layers on: what a trim rounds to is what runs.

    int8   W[n, k] ≈ s[n] q[n, k],  s[n] = max_k |W[n, k]| / 127,  q ∈ {-127 … 127}
    int4   W[n, k] ≈ s[n, g] (c[n, k] − 8) + z[n, g],  c ∈ {0 … 15},  g the group of k;  s and z are numbers of bfloat16

W is [N, K] in float32. int8 layers see inputs x [..., K] rounded to 8 bits by each token's own largest, int4 layers see bf16.
Weights that lie on the grid of int4 stay where they are when they are put there again, since both ends of a group are on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

GROUP = 32
GROUPS4 = (32, 64, 128, 256)
"""the groups that torch's int4 kernel takes"""


def quantize8(weight_NK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """int8 [N, K] and float32 scales [N]: symmetric, one scale per row, -127 … 127."""
    import torch

    scale_N = (weight_NK.abs().amax(dim=1) / 127).clamp_min(1e-12)
    return (weight_NK / scale_N[:, None]).round().clamp(-127, 127).to(torch.int8), scale_N


def on_grid8(weight_NK: torch.Tensor) -> torch.Tensor:
    """The weights as int8 holds them, float32 [N, K]."""
    codes_NK, scale_N = quantize8(weight_NK)
    return codes_NK.float() * scale_N[:, None]


def seen8(x: torch.Tensor) -> torch.Tensor:
    """Inputs [..., K] as an int8 layer sees them: 8 bits, scaled by the largest of each token."""
    step = (x.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-12)
    return (x / step).round() * step


def seen8_together(x: torch.Tensor) -> torch.Tensor:
    """Inputs [..., K] as the dynamic int8 kernels see them: 0 … 255 between the least and the largest of all of them, and 0."""
    low, high = x.min().clamp_max(0), x.max().clamp_min(0)
    step = ((high - low) / 255).clamp_min(1e-12)
    zero = (-low / step).round()
    return ((x / step).round() + zero).clamp(0, 255).sub(zero) * step


def quantize4(weight_NK: torch.Tensor, group: int = GROUP) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Two codes to a byte uint8 [N, K / 2], the first in the upper half; scales and offsets bf16 [N, K / group]."""
    import torch

    groups = weight_NK.unflatten(1, (-1, group))
    low, high = groups.amin(2), groups.amax(2)
    scale = ((high - low) / 15).clamp_min(1e-12).bfloat16()
    offset = (low + 8 * scale.float()).bfloat16()
    codes = ((groups - offset.float()[..., None]) / scale.float()[..., None] + 8).round().clamp(0, 15).to(torch.uint8).flatten(1)
    return codes[:, ::2] << 4 | codes[:, 1::2], scale, offset


def codes4(bytes_NH: torch.Tensor) -> torch.Tensor:
    """The codes, uint8 [N, K]."""
    import torch

    return torch.stack([bytes_NH >> 4, bytes_NH & 15], 2).flatten(1)


def values4(bytes_NH: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
    """The weights that `quantize4` stored, float32 [N, K]."""
    codes = (codes4(bytes_NH).float() - 8).unflatten(1, (scale.shape[1], -1))
    return (codes * scale.float()[..., None] + offset.float()[..., None]).flatten(1)


def on_grid4(weight_NK: torch.Tensor, group: int = GROUP) -> torch.Tensor:
    """The weights as int4 holds them, float32 [N, K]."""
    return values4(*quantize4(weight_NK, group))


def seen4(x: torch.Tensor) -> torch.Tensor:
    """Inputs [..., K] as an int4 layer sees them: in bf16."""
    return x.bfloat16().to(x.dtype)


def takes4(weight_NK: torch.Tensor, group: int = GROUP) -> bool:
    """Does the int4 kernel take this shape?"""
    return weight_NK.shape[0] % 16 == 0 and weight_NK.shape[1] % group == 0
