"""Frozen linear layers that hold their weights in NF4, and unpack them for each pass; no gradient is ever theirs.

    y = x W_nf4ᵀ + b          dx = dy W_nf4          W_nf4: [D_out, D_in], unpacked twice, for one layer at a time

Both `nn.Linear` and GPT-2's Conv1D, which holds its weight the other way round, become such a layer: blocks run along the
inputs of an output in each. Bytes and scales are buffers that are not part of the state: a fit casts and keeps parameters only.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from trimtune.tune import nf4

if TYPE_CHECKING:
    import torch


def pack(model: Any, double: bool) -> int:
    """Pack every frozen linear layer in the backbone of a transformers model, in place; returns how many.

    The embeddings, the norms and the output layer (or head) stay as they are, and so does a layer that learns.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    done: dict[torch.nn.Module, torch.nn.Module] = {}
    for parent in [*model.base_model.modules()]:
        for name, child in parent.named_children():
            if type(child) not in (torch.nn.Linear, Conv1D) or child is model.get_output_embeddings():
                continue
            if child in done or not child.weight.requires_grad:
                if child not in done:
                    done[child] = _layer()(child, isinstance(child, Conv1D), double)
                    child.weight = None  # or all of them would be held until the last one is packed
                setattr(parent, name, done[child])
    for parameter in model.parameters() if done else ():
        # transformers maps the checkpoint's file, and whoever holds one tensor of it holds every page that was read
        parameter.data = parameter.data.clone()
    return len(done)


def rounded(model: Any) -> dict[str, torch.Tensor]:
    """The packed weights of a transformers model (or of one inside PEFT) by their names before, float32, lying as they lay."""
    base = getattr(model, "get_base_model", lambda: model)()
    return {name.removesuffix(".base_layer") + ".weight": layer.as_it_lay() for name, layer in base.named_modules()
            if is_packed(layer)}


def weights(model: torch.nn.Module) -> int:
    """How many weights of the model are packed."""
    return sum(_sizes(model))


def largest(model: torch.nn.Module) -> int:
    """Weights of the largest packed layer, which is unpacked whole."""
    return max(_sizes(model), default=0)


def _sizes(model: Any) -> list[int]:
    return [layer.in_features * layer.out_features for layer in model.modules() if is_packed(layer)]


def is_packed(layer: Any) -> bool:
    return hasattr(layer, "weight_NK")


@cache
def _layer() -> Any:
    import torch

    class Nf4Linear(torch.nn.Module):
        packed: torch.Tensor
        codes: torch.Tensor
        steps: torch.Tensor | None
        mean: torch.Tensor | None

        def __init__(self, plain: Any, turned: bool, double: bool) -> None:
            super().__init__()
            weight_NK = plain.weight.detach().t().contiguous() if turned else plain.weight.detach()
            (self.out_features, self.in_features), self.turned = weight_NK.shape, turned
            packed, scales = nf4.quantize(weight_NK, double)
            for name, tensor in (("packed", packed), *scales._asdict().items()):
                self.register_buffer(name, tensor, persistent=False)
            self.bias = plain.bias

        def weight_NK(self, dtype: torch.dtype) -> torch.Tensor:
            scales = nf4.Scales(self.codes, self.steps, self.mean)
            found = nf4.dequantize(self.packed, scales, self.in_features * self.out_features, dtype)
            return found.view(self.out_features, self.in_features)

        def as_it_lay(self) -> torch.Tensor:
            weight = self.weight_NK(torch.float32).cpu()
            return weight.t().contiguous() if self.turned else weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = _product().apply(x, self.weight_NK, self.bias)
            return out

    return Nf4Linear


@cache
def _product() -> Any:
    import torch

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight_NK: Callable[[torch.dtype], torch.Tensor],
                    bias: torch.Tensor | None) -> torch.Tensor:
            ctx.weight_NK = weight_NK
            return torch.nn.functional.linear(x, weight_NK(x.dtype), bias)

        @staticmethod
        def backward(ctx: Any, d_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            d_x = d_out @ ctx.weight_NK(d_out.dtype) if ctx.needs_input_grad[0] else None
            return d_x, None, d_out.flatten(0, -2).sum(0) if ctx.needs_input_grad[2] else None

    return Product
