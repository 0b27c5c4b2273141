"""What PEFT puts before the tokens of a model that a trim makes smaller: it is cut alike.

    prefix   keys and values for every head of every layer, a table [P, layers · 2 · H · d]
    prompt   embeddings, a table [P, D]; P-tuning ends as one
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trimtune.trim import _importance

if TYPE_CHECKING:
    import torch


def prefix_of(module: Any) -> Any:
    """PEFT's settings of the model's prefix; None if it has none."""
    settings = _settings(module)
    return settings if settings is not None and settings.peft_type == "PREFIX_TUNING" else None


def keep_heads(module: Any, kept: Sequence[torch.Tensor]) -> None:
    """Of a prefix the heads that stay in each layer, int64 [H'] per layer, as many in each."""
    import torch

    settings = prefix_of(module)
    if settings is None:
        return
    before = settings.num_attention_heads
    whole = _table(module).weight.unflatten(1, (len(kept), 2, before, -1))
    _put(module, torch.stack([whole[:, layer, :, heads] for layer, heads in enumerate(kept)], dim=1).flatten(1))
    settings.num_attention_heads = len(kept[0])
    settings.token_dim = settings.token_dim // before * len(kept[0])


def keep_layers(module: Any, kept: Sequence[int], count: int) -> None:
    """Of a prefix the layers that stay, of `count`."""
    settings = _settings(module)
    if prefix_of(module):
        _put(module, _table(module).weight.unflatten(1, (count, -1))[:, list(kept)].flatten(1))
    if getattr(settings, "num_layers", None):
        settings.num_layers = len(kept)


def keep_channels(module: Any, kept: torch.Tensor) -> None:
    """Of a prompt the channels that stay, int64 [D']. A prefix has those of heads, which stay."""
    settings = _settings(module)
    if settings is not None and not prefix_of(module):
        _importance.keep_columns(_table(module), kept)
        settings.token_dim = len(kept)


def _settings(module: Any) -> Any:
    from peft import PeftModel

    return module.active_peft_config if isinstance(module, PeftModel) else None


def _table(module: Any) -> Any:
    return module.prompt_encoder[module.active_adapter].embedding


def _put(module: Any, weight_PD: torch.Tensor) -> None:
    import torch

    table = _table(module)
    table.weight, table.embedding_dim = torch.nn.Parameter(weight_PD.detach().clone(), requires_grad=False), weight_PD.shape[1]
