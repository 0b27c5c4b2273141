"""The last block computed only where it is read.

A classifier that pools the first token reads one position of the last block's output. That position needs the keys and
values of all others, but queries, output projection and feed-forward network of itself alone: the answer is the same, and
in a network of L blocks about 0.8/L of the work falls away, forward and backward. The whole block is the reference: `narrow`
compares the two on a few tokens and leaves a model alone whose answers differ, or whose blocks are built otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trimtune.tune.layers import kept_if_equal

if TYPE_CHECKING:
    import torch


def narrow(model: torch.nn.Module, every_query: bool = False) -> bool:
    """Narrow the last block of a transformers encoder (BERT's form of attention) in place; False where that can't be done.

    With `every_query` its attention is computed for all positions, and only what follows for the first one.
    """
    block = _last_block(model)
    if block is None:
        return False
    attention, hooks = block.attention, []

    def change() -> None:
        if not every_query:
            attention.self.forward = _attend_first(attention.self)
        hooks.append(attention.output.register_forward_pre_hook(
            lambda _, inputs: tuple(states[:, :1].contiguous() for states in inputs)))

    def undo() -> None:
        vars(attention.self).pop("forward", None)
        hooks.pop().remove()

    return kept_if_equal(model, change, undo)


def _last_block(model: torch.nn.Module) -> Any:
    encoder: Any = next((module for name, module in model.named_modules() if name.endswith("encoder")), None)
    block = encoder.layer[-1] if hasattr(encoder, "layer") else None
    attention = getattr(block, "attention", None)
    wanted = ("query", "key", "value", "attention_head_size", "scaling", "layer_idx", "config")
    known = hasattr(attention, "output") and all(hasattr(getattr(attention, "self", None), name) for name in wanted)
    return block if known else None


def _attend_first(layer: Any) -> Any:
    def forward(hidden_BTD: torch.Tensor, attention_mask: torch.Tensor | None = None, past_key_values: Any = None,
                **kwargs: Any) -> tuple[torch.Tensor, None]:
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
        from transformers.models.bert.modeling_bert import eager_attention_forward

        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.view(*x.shape[:-1], -1, layer.attention_head_size).transpose(1, 2)

        first = hidden_BTD[:, :1].contiguous()
        query, key, value = heads(layer.query(first)), heads(layer.key(hidden_BTD)), heads(layer.value(hidden_BTD))
        if past_key_values is not None:  # a trained prefix
            key, value = past_key_values.update(key, value, layer.layer_idx)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(layer.config._attn_implementation, eager_attention_forward)
        mask = None if attention_mask is None else attention_mask[:, :, :1]
        out, _ = attend(layer, query, key, value, mask, dropout=layer.dropout.p if layer.training else 0.0,
                        scaling=layer.scaling, **kwargs)
        return out.reshape(len(out), 1, -1).contiguous(), None

    return forward
