"""What the linear layers of a model see: mean and second moments of their inputs over rows, padding left out."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.study import data
from trimtune.tasks import text_classification

if TYPE_CHECKING:
    import torch

    from trimtune.tune.recovery import Setting

_RIDGE = 1e-4
"""of the inputs' mean variance: directions that the rows never took keep so much weight"""


@dataclass
class Seen:
    """Sums over `count` inputs x [K] of one layer, float64."""

    count: int
    sum_K: torch.Tensor
    product_KK: torch.Tensor

    @property
    def mean_K(self) -> torch.Tensor:
        return self.sum_K / self.count

    def root_KK(self, centered: bool = True) -> torch.Tensor:
        """S, lower triangular: S Sᵀ = E[x xᵀ] + ε I, of x less its mean if `centered`."""
        import torch

        spread_KK = self.product_KK / self.count
        if centered:
            spread_KK = spread_KK - torch.outer(self.mean_K, self.mean_K)
        ridge = (_RIDGE * spread_KK.diagonal().mean()).clamp_min(1e-12)
        root: torch.Tensor = torch.linalg.cholesky(spread_KK + ridge * torch.eye(len(spread_KK), dtype=spread_KK.dtype))
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
        found = Seen(len(x_MK), x_MK.sum(0).double(), (x_MK.T @ x_MK).double())
        before = seen.get(name)
        seen[name] = found if before is None else Seen(before.count + found.count, before.sum_K + found.sum_K,
                                                       before.product_KK + found.product_KK)

    hooks = [layer.register_forward_pre_hook(partial(keep, name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            for ids_BT in _batches(source, rows, setting):
                module(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _batches(source: Path, rows: int, setting: Setting) -> Iterator[torch.Tensor]:
    """Token ids int64 [B, T] of rows with the same length."""
    import torch

    train = data.load(setting.rows).train
    drawn = random.Random(setting.seed).sample(range(len(train.texts)), min(rows, len(train.texts)))
    split = data.Split([train.texts[row] for row in drawn], [train.labels[row] for row in drawn])
    alike: dict[int, list[list[int]]] = defaultdict(list)
    for ids in text_classification.inputs(text_classification.load_tokenizer(source), split, setting.max_length).ids:
        alike[len(ids)].append(ids)
    for _, group in sorted(alike.items()):
        for at in range(0, len(group), setting.batch_size):
            yield torch.tensor(group[at:at + setting.batch_size])
