"""What trims share that remove the least important inputs of linear layers: importances and cutting.

    taylor:      I[j] = Σ_rows | Σ_t Σ_c h[t, c] · ∂L/∂h[t, c] |      h [B, T, K]: what enters a layer; c: the channels of unit j
    activation:  I[j] = √(Σ_rows Σ_c (1/T Σ_t |h[t, c]|)²)
    weight:      I[j] = √(Σ_n Σ_c W[n, c]²)                           W [N, K]: the layer's own

To first order the first is what the rows' losses would change by if unit j gave nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.trim import _drawn
from trimtune.trim._model_folder import base_of
from trimtune.tune import batches
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch


def importances(module: torch.nn.Module, layers: Sequence[str], source: Path, rows: int, setting: Setting, *,
                channels: int = 1, criterion: str = "taylor") -> list[torch.Tensor]:
    """I[j] of what enters each of these layers, float32 [K / channels] each, summed over at most `rows` training rows.

    Args:
        criterion: `taylor`, `activation` or `weight`.
        layers: names of linear layers in the base model.
        source: the folder whose tokenizer reads the rows.
        channels: neighboring inputs that are one unit.
    """
    import torch

    base = base_of(module)
    if criterion == "weight":
        return [_norm(base.get_submodule(layer).weight.detach(), channels) for layer in layers]
    if criterion == "activation":
        return _activations(module, layers, source, rows, setting, channels)
    drawn = _drawn.inputs(source, setting, rows)
    scores = [torch.zeros(base.get_submodule(layer).in_features // channels) for layer in layers]
    seen: list[tuple[int, torch.Tensor]] = []

    def keep(layer: int, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        hidden_BTK = inputs[0] if inputs[0].requires_grad else inputs[0].detach().requires_grad_(True)
        hidden_BTK.retain_grad()
        seen.append((layer, hidden_BTK))
        return (hidden_BTK, *inputs[1:])

    hooks = [base.get_submodule(name).register_forward_pre_hook(partial(keep, layer)) for layer, name in enumerate(layers)]
    try:
        for at in range(0, len(drawn.ids), setting.batch_size):
            seen.clear()
            batch = range(at, min(at + setting.batch_size, len(drawn.ids)))
            tokens = batches.pad(drawn.ids, batch, drawn.pad_id)
            _drawn.summed_loss(module, setting.task, tokens, [drawn.targets[row] for row in batch]).backward()
            for layer, hidden_BTK in seen:  # a layer that is run many times is seen each time
                assert hidden_BTK.grad is not None
                effect_BK = (hidden_BTK.detach() * hidden_BTK.grad).sum(dim=1)
                scores[layer] += effect_BK.unflatten(-1, (-1, channels)).sum(dim=-1).abs().sum(dim=0)
    finally:
        for hook in hooks:
            hook.remove()
    return scores


def _activations(module: torch.nn.Module, layers: Sequence[str], source: Path, rows: int, setting: Setting,
                 channels: int) -> list[torch.Tensor]:
    import torch

    base, means = base_of(module), [list[torch.Tensor]() for _ in layers]

    def keep(layer: int, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        means[layer].append(inputs[0].abs().mean(1))

    hooks = [base.get_submodule(name).register_forward_pre_hook(partial(keep, layer)) for layer, name in enumerate(layers)]
    try:
        with torch.inference_mode():
            for ids_BT, _ in _drawn.of_equal_length(source, setting, rows):
                module(input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT))
    finally:
        for hook in hooks:
            hook.remove()
    return [_norm(torch.cat(mean).clone(), channels) for mean in means]


def _norm(rows_RK: torch.Tensor, channels: int) -> torch.Tensor:
    """√ of the sum of squares of each unit's channels, over all rows: [K / channels]."""
    return rows_RK.float().square().sum(0).unflatten(-1, (-1, channels)).sum(-1).sqrt()


def keep_outputs(linear: Any, kept: torch.Tensor) -> None:
    """Cut a linear layer [N, K] to these of its outputs, in place."""
    import torch

    linear.weight = torch.nn.Parameter(linear.weight.detach()[kept].clone(), requires_grad=False)
    if linear.bias is not None:
        linear.bias = torch.nn.Parameter(linear.bias.detach()[kept].clone(), requires_grad=False)
    linear.out_features = len(kept)


def keep_inputs(linear: Any, kept: torch.Tensor) -> None:
    """Cut a linear layer [N, K] to these of its inputs, in place."""
    import torch

    linear.weight = torch.nn.Parameter(linear.weight.detach()[:, kept].clone(), requires_grad=False)
    linear.in_features = len(kept)


def keep_columns(table: Any, kept: torch.Tensor) -> None:
    """Cut an embedding [V, D] to these of its channels, in place."""
    import torch

    table.weight = torch.nn.Parameter(table.weight.detach()[:, kept].clone(), requires_grad=False)
    table.embedding_dim = len(kept)


def share_kept(scores: Sequence[torch.Tensor], kept: Sequence[torch.Tensor]) -> float:
    """The share of each layer's summed importance that stays, its mean over the layers."""
    shares = [float(score[units].sum() / score.sum().clamp_min(1e-30)) for score, units in zip(scores, kept, strict=True)]
    return sum(shares) / len(shares)
