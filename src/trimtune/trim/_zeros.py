"""Which single weights of a model's linear layers go, and how they stay away while all others learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.trim import _drawn

if TYPE_CHECKING:
    import torch

    Layers = Mapping[str, torch.nn.Linear]

WITHIN = {"magnitude": "model", "wanda": "row", "taylor": "model", "movement": "layer"}
"""what the weights of each criterion are ranked within"""
_HEAD_START = 1e-3
"""the score of a layer's largest weight when movement begins: a few steps of a fit outgrow it"""


def layers(base: Any, pattern: str = "free") -> dict[str, torch.nn.Linear]:
    """The linear layers inside a transformers model's repeated blocks, by name.

    Raises:
        TrimtuneError: none, or one whose rows can't be cut into fours for the pattern 2:4.
    """
    import torch

    inside = [f"{name}." for name, module in base.base_model.named_modules() if isinstance(module, torch.nn.ModuleList)]
    found = {name: layer for name, layer in base.base_model.named_modules()
             if isinstance(layer, torch.nn.Linear) and name.startswith(tuple(inside))}
    if not found:
        raise TrimtuneError(f"prune_weights: {type(base).__name__} has no plain linear layers in its blocks.",
                            "Allowed: models whose blocks are made of torch.nn.Linear (BERT, DistilBERT, RoBERTa, Llama …).",
                            "Leave prune_weights out of `trim`, or use a model such as `minilm`.")
    odd = next((name for name, layer in found.items() if pattern == "2:4" and layer.in_features % 4), None)
    if odd:
        raise TrimtuneError(f"prune_weights: {odd} has {found[odd].in_features} inputs.",
                            "pattern 2:4 needs a multiple of 4 in every layer.", "Write pattern: free.")
    return found


def scores(module: torch.nn.Module, found: Layers, criterion: str, source: Path, rows: int, setting: Any) -> list[torch.Tensor]:
    """S of each layer, float32 [N, K], of `movement` where it begins; −1 for what is zero already, so that it goes first."""
    within = list(found.values())
    if criterion in ("magnitude", "movement"):
        found_NK = [layer.weight.detach().abs() for layer in within]
        if criterion == "movement":
            found_NK = [size_NK * (_HEAD_START / size_NK.max().clamp_min(1e-30)) for size_NK in found_NK]
    else:
        batches = _drawn.of_equal_length(source, setting, rows)
        found_NK = _wanda(module, within, batches) if criterion == "wanda" else _taylor(module, within, batches, setting.task)
    return [score.masked_fill(layer.weight == 0, -1.0) for score, layer in zip(found_NK, found.values(), strict=True)]


def _wanda(module: torch.nn.Module, found: Sequence[torch.nn.Linear], batches: Any) -> list[torch.Tensor]:
    import torch

    squares = [torch.zeros(layer.in_features) for layer in found]

    def see(sum_K: torch.Tensor, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        sum_K += inputs[0].flatten(0, -2).square().sum(0)

    hooks = [layer.register_forward_pre_hook(partial(see, sum_K)) for layer, sum_K in zip(found, squares, strict=True)]
    try:
        with torch.no_grad():
            for ids_BT, _ in batches:
                module(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))
    finally:
        for hook in hooks:
            hook.remove()
    return [layer.weight.detach().abs() * sum_K.sqrt() for layer, sum_K in zip(found, squares, strict=True)]


def _taylor(module: torch.nn.Module, found: Sequence[torch.nn.Linear], batches: Any, task: str) -> list[torch.Tensor]:
    import torch

    sums = [torch.zeros_like(layer.weight) for layer in found]
    for layer in found:
        layer.weight.requires_grad_(True)
    for ids_BT, targets in batches:
        loss = _drawn.summed_loss(module, task, {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}, targets)
        for sum_NK, layer, grad in zip(sums, found, torch.autograd.grad(loss, [layer.weight for layer in found]), strict=True):
            sum_NK += (layer.weight.detach() * grad).square()
    for layer in found:
        layer.weight.requires_grad_(False)
    return sums


def lowest(found: Sequence[torch.Tensor], share: float, within: str) -> list[torch.Tensor]:
    """True for the `share` of lowest scores, bool [N, K] of each layer, counted within the `model`, each `layer`, each `row` or
    each `2:4`."""
    import torch

    if within == "model":
        flat = torch.cat([score.flatten() for score in found])
        gone = torch.zeros(len(flat), dtype=torch.bool)
        gone[flat.topk(round(share * len(flat)), largest=False, sorted=False).indices] = True
        parts = gone.split([score.numel() for score in found])
        return [part.view_as(score) for part, score in zip(parts, found, strict=True)]
    grouped = [score.unflatten(1, (-1, 4)) if within == "2:4" else score.flatten() if within == "layer" else score
               for score in found]
    few = [score.topk(round(share * score.shape[-1]), dim=-1, largest=False, sorted=False).indices for score in grouped]
    return [torch.zeros_like(score, dtype=torch.bool).scatter_(-1, index, True).view_as(whole)
            for score, index, whole in zip(grouped, few, found, strict=True)]


def hold(found: Layers, gone: Sequence[torch.Tensor]) -> None:
    """Keep weights at zero whatever a fit does: W = latent · M, and what learns is the latent, whose gradient is zero there."""
    import torch
    from torch.nn.utils import parametrize

    class Kept(torch.nn.Module):
        gone_NK: torch.Tensor

        def __init__(self, gone_NK: torch.Tensor) -> None:
            super().__init__()
            self.register_buffer("gone_NK", gone_NK, persistent=False)

        def forward(self, latent_NK: torch.Tensor) -> torch.Tensor:
            return latent_NK.masked_fill(self.gone_NK, 0)  # a product would leave -0.0, which is no zero in bits

    for layer, gone_NK in zip(found.values(), gone, strict=True):
        parametrize.register_parametrization(layer, "weight", Kept(gone_NK))


def learn(found: Layers, start: Sequence[torch.Tensor], share: float, within: str) -> None:
    """Let a fit learn the scores as well: W = latent · M(S) with the lowest S gone anew in each pass, and, straight through M,

        ∂L/∂S := ∂L/∂W · latent        S falls where a step would move a weight toward zero, and rises where away from it

    Args:
        start: S of each layer before the fit, float32 [N, K].
    """
    import torch
    from torch.nn.utils import parametrize

    class Masked(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, latent_NK: torch.Tensor, scores_NK: torch.Tensor) -> torch.Tensor:
            (gone_NK,) = lowest([scores_NK], share, within)
            ctx.save_for_backward(latent_NK, gone_NK)
            return latent_NK.masked_fill(gone_NK, 0)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            latent_NK, gone_NK = ctx.saved_tensors
            return grads[0].masked_fill(gone_NK, 0), grads[0] * latent_NK

    class Moving(torch.nn.Module):
        def __init__(self, start_NK: torch.Tensor) -> None:
            super().__init__()
            self.scores_NK = torch.nn.Parameter(start_NK.clone())

        def forward(self, latent_NK: torch.Tensor) -> torch.Tensor:
            kept_NK: torch.Tensor = Masked.apply(latent_NK, self.scores_NK)
            return kept_NK

    for layer, start_NK in zip(found.values(), start, strict=True):
        parametrize.register_parametrization(layer, "weight", Moving(start_NK))


def release(found: Layers) -> None:
    """Make plain layers of held ones again, with their zeros in the weights."""
    from torch.nn.utils import parametrize

    for layer in found.values():
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


def counted(found: Layers) -> dict[str, Any]:
    """`weights`, `zeros`, `sparsity`, and `layers`: the lowest and the highest sparsity of one."""
    weights = sum(layer.weight.numel() for layer in found.values())
    zeros = {name: int((layer.weight == 0).sum()) for name, layer in found.items()}
    each = [zeros[name] / layer.weight.numel() for name, layer in found.items()]
    return {"weights": weights, "zeros": sum(zeros.values()), "sparsity": round(sum(zeros.values()) / weights, 6),
            "layers": [round(min(each), 4), round(max(each), 4)]}
