"""GELU's tanh approximation as the one operation that torch has for it (Hendrycks & Gimpel 2016, arXiv 1606.08415).

    0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³)))

transformers writes GPT-2's out in eight operations, which keep four tensors of the feed-forward width for the backward pass;
the one keeps its input alone. The model's own is the reference: one whose answers differ is left alone.
"""

from __future__ import annotations

from typing import Any

from trimtune.tune.layers import kept_if_equal

_WRITTEN_OUT = ("NewGELUActivation", "FastGELUActivation")


def fuse(model: Any) -> int:
    """Replace the activations of a float32 transformers model that are written out; returns how many."""
    import torch

    found = [(module, name, child) for module in model.modules() for name, child in module.named_children()
             if type(child).__name__ in _WRITTEN_OUT]

    def change() -> None:
        for module, name, _ in found:
            setattr(module, name, torch.nn.GELU(approximate="tanh"))

    def undo() -> None:
        for module, name, child in found:
            setattr(module, name, child)

    return len(found) if found and kept_if_equal(model, change, undo) else 0
