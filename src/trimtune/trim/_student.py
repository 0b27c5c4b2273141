"""A model with some of its layers: the layers that stay keep their weights, and all that stands around them does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trimtune.errors import TrimtuneError
from trimtune.tasks import _shapes
from trimtune.trim import _virtual_tokens
from trimtune.trim._model_folder import base_of, plain_state
from trimtune.tune.layers import layers_of

if TYPE_CHECKING:
    import torch

_ALLOWED = "Allowed: models whose layers are alike and run one after another, such as BERT, DistilBERT, MPNet, GPT-2 or Llama."
_DO = "Leave distill out of `trim`, or use a model such as `minilm`."


def layers(module: torch.nn.Module) -> torch.nn.ModuleList:
    """The layers of a transformers model, or of the one inside PEFT's wrapper, the lowest first.

    Raises:
        TrimtuneError: it has no such list.
    """
    try:
        return layers_of(base_of(module))
    except TrimtuneError as error:
        raise TrimtuneError(error.given.replace("layers:", "distill:", 1), _ALLOWED, _DO) from None


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` layers, from 0: evenly spread, the last one among them.

    Raises:
        TrimtuneError: there are fewer.
    """
    if wanted > count:
        raise TrimtuneError(f"distill: layers: {wanted} was given.", f"The model has {count} layers.",
                            f"Ask for {max(1, count - 1)} or fewer.")
    return [(at + 1) * count // wanted - 1 for at in range(wanted)]


def keep(module: torch.nn.Module, kept: Sequence[int], auto: str = "AutoModelForSequenceClassification") -> None:
    """Leave these layers only (ascending, from 0), in place; a prefix keeps what it has for them.

    Args:
        auto: the class of transformers that builds such models from a config.

    Raises:
        TrimtuneError: the model is no longer what transformers builds from its config.
    """
    import torch
    import transformers

    base, whole = base_of(module), layers(module)
    name = next(name for name, child in base.named_modules() if child is whole)
    base.set_submodule(name, torch.nn.ModuleList(whole[at] for at in kept))
    base.config.num_hidden_layers = len(kept)
    if getattr(base.config, "layer_types", None):
        base.config.layer_types = [base.config.layer_types[at] for at in kept]
    for at, layer in enumerate(layers(module)):
        for part in layer.modules():
            if hasattr(part, "layer_idx"):  # its place in a cache, which a prefix is read from
                part.layer_idx = at  # type: ignore[assignment]
    _virtual_tokens.keep_layers(module, kept, len(whole))
    shapes = {name: value.shape for name, value in plain_state(module).items()}
    built = _shapes.empty(getattr(transformers, auto), base.config, shapes, "eager").state_dict()
    if {name: value.shape for name, value in built.items()} != shapes:
        raise TrimtuneError(f"distill: {type(base).__name__} can't be built with {len(kept)} of its {len(whole)} layers.",
                            _ALLOWED, _DO)
