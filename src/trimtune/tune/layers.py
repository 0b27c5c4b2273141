"""Where a transformer's layers are, and what comes after them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError

if TYPE_CHECKING:
    import torch


def layers_of(model: Any) -> torch.nn.ModuleList:
    """The list of equal layers that a transformers model runs one after another, the lowest first.

    Raises:
        TrimtuneError: it has no such list (ALBERT runs one layer many times).
    """
    import torch

    count = getattr(model.config, "num_hidden_layers", 0)
    for module in model.base_model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return module
    raise TrimtuneError(f"layers: {type(model).__name__} has no list of {count} layers that run one after another.",
                        "Allowed: encoders and decoders that do, such as BERT, DistilBERT, MPNet or GPT-2.",
                        "Use another method, such as `lora`.")


def linear_names(model: torch.nn.Module) -> list[str]:
    """The last parts of the names of a model's linear layers, for a user who must name some."""
    import torch

    return sorted({name.rsplit(".", 1)[-1] for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)})


def top(model: Any, count: int) -> list[torch.nn.Module]:
    """The modules from the top `count` layers on: these, then what follows them in the backbone (a final norm, the pooler)
    and the head; not a language model's output layer, which may be its embedding.

    Raises:
        TrimtuneError: the model has fewer layers, or none that are known.
    """
    layers = layers_of(model)
    if count > len(layers):
        raise TrimtuneError(f"layers: the top {count} were asked for.", f"{type(model).__name__} has {len(layers)} of them.",
                            f"Ask for {len(layers)} or fewer.")
    inside = list(model.base_model.children())
    at = next(index for index, child in enumerate(inside) if any(module is layers for module in child.modules()))
    heads = [child for child in after_backbone(model) if child is not model.get_output_embeddings()]
    return [*layers[-count:], *inside[at + 1:], *heads]


def after_backbone(model: Any) -> list[torch.nn.Module]:
    """A transformers model's head, or its output layer."""
    return [child for child in model.children() if child is not model.base_model]


def sample(model: Any) -> dict[str, torch.Tensor]:
    """Tokens to try a model with: two short rows, one of them padded."""
    import torch

    place = next(model.parameters()).device
    ids = torch.arange(1, 13, device=place).view(2, 6) % model.config.vocab_size
    return {"input_ids": ids, "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2], device=place)}


def kept_if_equal(model: Any, change: Callable[[], object], undo: Callable[[], object]) -> bool:
    """Change a float32 model if its answers to a few tokens stay what they are (1e-4); undo it and return False if not."""
    import torch

    tokens, was_training = sample(model), model.training
    with torch.no_grad():
        whole = model.eval()(**tokens).logits
        try:
            change()
            same = torch.allclose(model(**tokens).logits, whole, atol=1e-4)
        except (RuntimeError, ValueError, LookupError, AttributeError):  # an architecture that is built otherwise
            same = False
    if not same:
        undo()
    model.train(was_training)
    return same
