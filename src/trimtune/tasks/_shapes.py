"""Models whose linear layers have other shapes than the architecture gives them, as trims leave them.

A trim that cuts rows or columns off a linear layer (heads), or makes two thin ones of it (low rank: `name.0`, `name.1`),
marks the config (`mark`). Such a folder is read here: the model is built as its config says, then each linear layer takes the
shape that the file holds. Plain transformers can't read it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import StepFailed

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
_MARK = "trimtune_shapes"
"""the key of config.json that says so"""


def mark(config: Any) -> None:
    """Say in a model's config that its file holds other shapes."""
    setattr(config, _MARK, True)


def marked(config: Any) -> bool:
    return bool(getattr(config, _MARK, False))


def is_marked(folder: Path) -> bool:
    """`marked` of a model folder, without loading anything heavy."""
    return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get(_MARK))


def read(auto: Any, folder: Path, attention: str, dtype: torch.dtype) -> Any:
    """The model of a folder, whatever shapes its linear layers have; stored numbers become `dtype`.

    Raises:
        ValueError: as transformers does, where the architecture lacks such a model or this attention.
        StepFailed: a marked folder lacks tensors.
    """
    from safetensors.torch import load_file
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    if not marked(config):
        return auto.from_pretrained(folder, attn_implementation=attention, dtype=dtype, use_safetensors=True,
                                    trust_remote_code=False)
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
             for name, tensor in load_file(folder / WEIGHTS).items()}
    model = empty(auto, config, {name: tuple(tensor.shape) for name, tensor in state.items()}, attention)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    lacking = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if lacking:
        raise StepFailed(f"{folder / WEIGHTS} lacks {', '.join(lacking[:3])}")
    return model.to(dtype)


def empty(auto: Any, config: Any, shapes: Mapping[str, Sequence[int]], attention: str) -> Any:
    """The model of a config with its linear layers in the given shapes (tensor name → shape), its parameters without numbers."""
    import torch
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        model = auto.from_config(config, attn_implementation=attention, dtype=torch.float32)
        for name, layer in list(model.named_modules()):
            if isinstance(layer, torch.nn.Linear):
                model.set_submodule(name, _fitting(layer, name, shapes))
    return model


def _fitting(layer: torch.nn.Linear, name: str, shapes: Mapping[str, Sequence[int]]) -> torch.nn.Module:
    import torch

    thin, wide = shapes.get(f"{name}.0.weight"), shapes.get(f"{name}.1.weight")
    if thin and wide:
        return torch.nn.Sequential(torch.nn.Linear(thin[1], thin[0], bias=False),
                                   torch.nn.Linear(wide[1], wide[0], bias=layer.bias is not None))
    wanted = tuple(shapes.get(f"{name}.weight", layer.weight.shape))
    if wanted == tuple(layer.weight.shape):
        return layer
    return torch.nn.Linear(wanted[1], wanted[0], bias=layer.bias is not None)
