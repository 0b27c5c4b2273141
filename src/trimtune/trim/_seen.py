"""What the linear layers of a model see: second moments of their inputs over rows, padding left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.trim._drawn import of_equal_length

if TYPE_CHECKING:
    import torch

    from trimtune.tune.recovery import Setting

_RIDGE = 1e-4
"""of the inputs' mean square: directions that the rows never took keep so much weight"""


@dataclass
class Seen:
    """The sum of x xᵀ over `count` inputs x [K] of one layer, float64 [K, K]."""

    count: int
    product_KK: torch.Tensor

    def root_KK(self) -> torch.Tensor:
        """S, lower triangular: S Sᵀ = E[x xᵀ] + ε I."""
        import torch

        moment_KK = self.product_KK / self.count
        ridge = (_RIDGE * moment_KK.diagonal().mean()).clamp_min(1e-12)
        root: torch.Tensor = torch.linalg.cholesky(moment_KK + ridge * torch.eye(len(moment_KK), dtype=moment_KK.dtype))
        return root


def inputs_of(module: torch.nn.Module, layers: Mapping[str, torch.nn.Module], source: Path, rows: int,
              setting: Setting) -> dict[str, Seen]:
    """What each of the layers (name → part of `module`) sees in at most `rows` training rows, drawn with the seed.

    Rows of one length go together, so nothing is padded and every position counts.
    """
    import torch

    seen: dict[str, Seen] = {}

    def keep(name: str, _: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
        x_MK = inputs[0].detach().float().flatten(0, -2)
        product_KK, before = (x_MK.T @ x_MK).double(), seen.get(name)
        seen[name] = Seen(len(x_MK), product_KK) if before is None else Seen(before.count + len(x_MK),
                                                                             before.product_KK + product_KK)

    hooks = [layer.register_forward_pre_hook(partial(keep, name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for ids_BT, _ in of_equal_length(source, setting, rows):
                module(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))
    finally:
        for hook in hooks:
            hook.remove()
    return seen
