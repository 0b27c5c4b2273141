"""Dropout that does not wait for the random numbers.

`nn.Dropout` on a CPU draws one serial random number per element, a third of a small model's step. Here one 64-bit draw
decides eight elements (Srivastava et al. 2014, same estimator; p is rounded to a multiple of 1/256).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def keep_mask(shape: torch.Size, p: float) -> tuple[torch.Tensor, float]:
    """A uint8 mask of `shape`, 1 where an element is kept, and the factor 1/(1-p) for the rounded p."""
    import torch

    cut = round(p * 256)
    count = shape.numel()
    draws = torch.empty((count + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
    mask = draws.view(torch.uint8)[:count].view(shape) >= cut
    return mask, 256 / (256 - cut)


def quicken(model: torch.nn.Module) -> None:
    """Replace every `nn.Dropout` of the model that is on (p > 0) by the fast one; one that is off costs nothing."""
    import torch

    class FastDropout(torch.nn.Module):
        def __init__(self, p: float) -> None:
            super().__init__()
            self.p = p

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.training:
                return x
            mask, scale = keep_mask(x.shape, self.p)
            return x * mask.to(x.dtype).mul_(scale)

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
