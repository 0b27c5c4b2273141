"""Dropout that does not wait for the random numbers.

`nn.Dropout` on a CPU draws one serial random number per element: with adapters on every layer, a fifth of a small model's
step. Here the draws are made once per fit, into a pool of factors 0 and 1/(1-p); a call multiplies by a window of the pool
that starts at a random place (Srivastava et al. 2014; each element is dropped with probability p, rounded to a multiple of
1/256). The pool follows from the seed and the window from torch's generator, so a fit can be repeated and resumed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from trimtune.tune import device

if TYPE_CHECKING:
    import torch

_SMALLEST = 2**22


@lru_cache(maxsize=4)
def pool(size: int, p: float, dtype: torch.dtype, seed: int) -> torch.Tensor:
    """`size` factors: 0 with probability p (rounded to 1/256), else 1/(1-p). One 64-bit draw decides eight of them."""
    import torch

    cut = min(255, max(1, round(p * 256)))
    draws = torch.empty((size + 7) // 8, dtype=torch.int64).random_(-(2**63), None, generator=torch.Generator().manual_seed(seed))
    return (draws.view(torch.uint8)[:size] >= cut).to(dtype).mul_(256 / (256 - cut))


def factors(x: torch.Tensor, p: float, seed: int) -> torch.Tensor:
    """Factors of the shape and dtype of `x`: a window of a pool at least twice as long (on a GPU, which is quick, drawn anew)."""
    import torch

    if x.device.type != "cpu":
        return torch.empty_like(x).bernoulli_(1 - p).div_(1 - p)
    size = max(_SMALLEST, 1 << (2 * x.numel() - 1).bit_length())
    start = int(torch.randint(size - x.numel(), ()))
    return pool(size, p, x.dtype, seed).narrow(0, start, x.numel()).view(x.shape)


def quicken(model: torch.nn.Module, seed: int) -> None:
    """Replace every `nn.Dropout` of the model that is on (p > 0) by the fast one; one that is off costs nothing.

    On a GPU, whose own is one quick operation, all stay.
    """
    import torch

    if device.here().type != "cpu":
        return

    class FastDropout(torch.nn.Module):
        def __init__(self, p: float) -> None:
            super().__init__()
            self.p, self.seed = p, seed

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * factors(x, self.p, self.seed) if self.training else x

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Dropout and child.p > 0:
                setattr(module, name, FastDropout(child.p))


def silence_frozen(model: torch.nn.Module) -> None:
    """Turn dropout off in the frozen base: a block that does not learn needs no noise. The method adds its own afterwards."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
