"""Models whose linear layers or token embedding have other shapes than the architecture gives them, as trims leave them.

Linear layers are `torch.nn.Linear`, or GPT-2's transposed ones (Conv1D of transformers, W [K, N]).

A trim that cuts rows or columns off a linear layer (heads), or makes two thin ones of it (low rank: `name.0`, `name.1`), or a
narrow table and a linear layer of an embedding (`name.narrow`, `name.wide`), marks the config (`mark`). Such a folder is read
here: the model is built as its config says, then each of these takes the shape that the file holds. Plain transformers can't
read it.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import StepFailed

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
_MARK = "trimtune_shapes"
"""the key of config.json that says so"""
_NARROW, _WIDE = "narrow", "wide"
"""the halves of a factorised embedding; no numbers, by which others know a model's blocks"""


def mark(config: Any) -> None:
    """Say in a model's config that its file holds other shapes."""
    setattr(config, _MARK, True)


def marked(config: Any) -> bool:
    return bool(getattr(config, _MARK, False))


def is_marked(folder: Path) -> bool:
    """Whether a model folder holds shapes that its config can't say, without importing transformers."""
    return bool(json.loads((folder / "config.json").read_text(encoding="utf-8")).get(_MARK, False))


def factorised(table: Any, rank: int, width: int) -> torch.nn.Sequential:
    """An embedding [V, rank] and a linear layer [width, rank] without bias, in the place of `table`; their numbers are drawn."""
    import torch

    narrow = torch.nn.Embedding(table.num_embeddings, rank, padding_idx=table.padding_idx)
    return torch.nn.Sequential(OrderedDict({_NARROW: narrow, _WIDE: torch.nn.Linear(rank, width, bias=False)}))


def token_table(model: Any) -> Any:
    """What holds a row per token: the model's token embedding [V, D], or the narrow half [V, r] of one that is factorised."""
    found = model.get_input_embeddings()
    return getattr(found, _NARROW, found)


def read(auto: Any, folder: Path, attention: str | None, dtype: torch.dtype) -> Any:
    """The model of a folder, whatever shapes its layers have; stored numbers become `dtype`, buffers that it computes
    keep theirs (rotary frequencies must not be rounded).

    Args:
        attention: transformers' name of it; None for the model's own choice.

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
    return filled(auto, folder, load_file(folder / WEIGHTS), attention, dtype)


def filled(auto: Any, folder: Path, state: Mapping[str, torch.Tensor], attention: str | None, dtype: torch.dtype) -> Any:
    """The model of a folder's config with these tensors in the shapes that they have; their numbers become `dtype`.

    Raises:
        StepFailed: there are too few.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model = empty(auto, config, {name: tuple(tensor.shape) for name, tensor in state.items()}, attention)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    lacking = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if lacking:
        raise StepFailed(f"{folder / WEIGHTS} lacks {', '.join(lacking[:3])}")
    return model


def built_alike(model: Any, config: Any, state: Mapping[str, torch.Tensor]) -> bool:
    """Whether plain transformers builds a model of this one's class with tensors of the same shapes from the config."""
    from accelerate import init_empty_weights

    with init_empty_weights():
        built = type(model)(config).state_dict()
    return {name: value.shape for name, value in built.items()} == {name: value.shape for name, value in state.items()}


def empty(auto: Any, config: Any, shapes: Mapping[str, Sequence[int]], attention: str | None) -> Any:
    """The model of a config with its layers in the given shapes (tensor name → shape), its parameters without numbers."""
    import torch
    from accelerate import init_empty_weights
    from transformers.pytorch_utils import Conv1D

    with init_empty_weights(include_buffers=False):
        model = auto.from_config(config, attn_implementation=attention, dtype=torch.float32)
        for name, layer in list(model.named_modules()):
            if isinstance(layer, torch.nn.Linear | Conv1D | torch.nn.Embedding):
                model.set_submodule(name, _fitting(layer, name, shapes))
    count_channels(model)
    return model


def count_channels(model: Any) -> None:
    """Tell each attention that makes queries, keys and values in one layer (GPT-2's) where that ends one and begins the next."""
    for module in model.modules():
        if hasattr(module, "split_size") and hasattr(module, "c_attn"):
            last = [layer for layer in module.c_attn.modules() if getattr(layer, "bias", None) is not None][-1]
            module.split_size = len(last.bias) // 3


def _fitting(layer: Any, name: str, shapes: Mapping[str, Sequence[int]]) -> torch.nn.Module:
    import torch
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, torch.nn.Embedding):
        out = shapes.get(f"{name}.{_WIDE}.weight")
        return factorised(layer, out[1], out[0]) if out else layer
    thin, wide = shapes.get(f"{name}.0.weight"), shapes.get(f"{name}.1.weight")
    if thin and wide:
        return torch.nn.Sequential(torch.nn.Linear(thin[1], thin[0], bias=False),
                                   torch.nn.Linear(wide[1], wide[0], bias=layer.bias is not None))
    wanted = tuple(shapes.get(f"{name}.weight", layer.weight.shape))
    if wanted == tuple(layer.weight.shape):
        return layer
    if isinstance(layer, Conv1D):
        return Conv1D(wanted[1], wanted[0])
    return torch.nn.Linear(wanted[1], wanted[0], bias=layer.bias is not None)
