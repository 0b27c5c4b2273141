"""Eager attention in bf16 with its softmax in float32: faster where rows are shorter than a vector, and nearer the exact map.

    out = bf16(softmax(s · float32(Q Kᵀ) + mask)) V

torch's CPU kernels fall to scalars for the last elements of a row in bf16: 0.70 and 0.59 ms forward and backward for 32 × 12
maps of 25 × 25, 0.17 and 0.04 in float32. The model's own attention is the reference: `use` compares the two on a few tokens
and leaves a model alone whose answers differ (capped scores, sinks) or that takes its attention another way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtune.tune.layers import kept_if_equal

if TYPE_CHECKING:
    import torch

NAME = "eager_float32"


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float,
           dropout: float = 0.0) -> torch.Tensor:
    """[B, H, T, d] of the same; the products in the working format, what is between them in float32."""
    import torch

    scores = (query @ key.transpose(-1, -2)).float().mul(scaling)
    map_BHTS = torch.softmax(scores if mask is None else scores.add_(mask), -1).to(query.dtype)
    return torch.nn.functional.dropout(map_BHTS, dropout) @ value if dropout else map_BHTS @ value


def use(model: Any) -> bool:
    """Make a float32 transformers model attend so; False, and the model as it was, where that is not its own function."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(NAME, heads)
    AttentionMaskInterface.register(NAME, eager_mask)
    was = model.config._attn_implementation
    return kept_if_equal(model, lambda: model.set_attn_implementation(NAME), lambda: model.set_attn_implementation(was))


def heads(layer: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attention_mask: torch.Tensor | None,
          scaling: float | None = None, dropout: float = 0.0, **_: Any) -> tuple[torch.Tensor, None]:
    """`attend` as transformers calls an attention function; out [B, T, H, d]."""
    key, value = (shared(x, query) for x in (key, value))
    out = attend(query, key, value, attention_mask, scaling or query.shape[-1] ** -0.5, dropout if layer.training else 0.0)
    return out.transpose(1, 2).contiguous(), None


def shared(key: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """A key or value [B, G, S, d] once for each of the query's heads, [B, H, S, d]: neighbors share one."""
    groups = query.shape[1] // key.shape[1]
    return key.repeat_interleave(groups, 1) if groups > 1 else key
