"""A LoRA layer as one function, forward and backward: peft's own forward is the reference, and the tests compare the two.

    y = x Wᵀ + b + s (m∘x) Aᵀ Bᵀ          x: [..., D_in], y: [..., D_out], A: [r, D_in], B: [D_out, r], m: dropout's factors

peft builds this from a dozen operations, each of which reads and writes whole activations. Here the update is added in
place, and the gradients are four thin products and one fused multiply-add:

    g = s dy B      dB = s (dy)ᵀ (m∘x)Aᵀ      dA = gᵀ (m∘x)      dx = dy W + m ∘ (g A)

W is asked for in each pass, so a packed one is unpacked for the time of a product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trimtune.tune import dropout, packed

if TYPE_CHECKING:
    import torch


def fuse(model: torch.nn.Module, seed: int) -> int:
    """Give every plain LoRA layer of a PEFT model the fused forward; returns how many. Others keep peft's own.

    Plain: one adapter on an `nn.Linear`, a Conv1D of GPT-2 or a packed layer, with a frozen weight and bias; no DoRA, no bias of
    the adapter's own.
    """
    from peft.tuners.lora import Linear

    layers = [layer for layer in model.modules() if type(layer) is Linear and _plain(layer)]
    if layers:
        apply = _function().apply
        for layer in layers:
            layer.forward = _forward(layer, apply, seed)
    return len(layers)


def _plain(layer: Any) -> bool:
    import torch
    from transformers.pytorch_utils import Conv1D

    base, names = layer.base_layer, layer.active_adapters
    linear = type(base) in (torch.nn.Linear, Conv1D) or packed.is_packed(base)
    frozen = linear and not any(parameter.requires_grad for parameter in base.parameters())
    return frozen and len(names) == 1 and not layer.merged and not layer.lora_variant and not any(layer.lora_bias.values())


def _forward(layer: Any, apply: Any, seed: int) -> Any:
    base, (name,) = layer.base_layer, layer.active_adapters
    a, b, drop, scale = layer.lora_A[name], layer.lora_B[name], layer.lora_dropout[name], layer.scaling[name]
    p, turned = getattr(drop, "p", 0.0), layer.is_target_conv_1d_layer

    def plain(_: torch.dtype) -> torch.Tensor:
        weight: torch.Tensor = base.weight  # a Conv1D's is [D_in, D_out]
        return weight.t() if turned else weight

    weight_NK = base.weight_NK if packed.is_packed(base) else plain

    def forward(x: torch.Tensor) -> torch.Tensor:
        factors = dropout.factors(x, p, seed) if layer.training and p > 0 else None
        out: torch.Tensor = apply(x, weight_NK, base.bias, a.weight, b.weight, scale, factors)
        return out

    return forward


def _function() -> Any:
    import torch

    class FusedLora(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor, weight_NK: Callable[[torch.dtype], torch.Tensor], bias: torch.Tensor | None,
                    a: torch.Tensor, b: torch.Tensor, scale: float, factors: torch.Tensor | None) -> torch.Tensor:
            x_ND, weight = x.flatten(0, -2), weight_NK(x.dtype)
            dropped = x_ND if factors is None else x_ND * factors.flatten(0, -2)
            thin = dropped @ a.t()
            if bias is None or x.device.type != "cpu":
                out = torch.nn.functional.linear(x_ND, weight, bias).addmm_(thin, b.t(), alpha=scale)
            else:  # the bias as one more rank: added by itself it would cost a CPU a pass over `out`
                out = x_ND @ weight.t()
                out.addmm_(torch.cat([thin * scale, thin.new_ones(len(thin), 1)], 1), torch.cat([b, bias[:, None]], 1).t())
            ctx.save_for_backward(dropped, thin, a, b, factors)
            ctx.scale, ctx.weight_NK = scale, weight_NK
            return out.view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx: Any, d_out: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            dropped, thin, a, b, factors = ctx.saved_tensors
            dy = d_out.flatten(0, -2)
            g = (dy @ b).mul_(ctx.scale)
            d_b = (thin.t() @ dy).t().mul(ctx.scale)  # this way round the product is twice as fast
            d_a = g.t() @ dropped
            d_x = None
            if ctx.needs_input_grad[0]:
                d_x = dy @ ctx.weight_NK(dy.dtype)
                if factors is None:
                    d_x.addmm_(g, a)
                else:
                    d_x.addcmul_(g @ a, factors.flatten(0, -2))
                d_x = d_x.view(*d_out.shape[:-1], -1)
            return d_x, None, None, d_a, d_b, None, None

    return FusedLora
