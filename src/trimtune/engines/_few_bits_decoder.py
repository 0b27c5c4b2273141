"""Language models stored in few bits for PyTorch: one bit or three values, as `binary` and `ternary` leave them
(`_few_bits_torch.py`), and `mixed`, which has a format for each layer.

Layers of 1 or 1.6 bits per weight are unpacked on load to the float32 that they were, bit for bit; what `mixed` left in int4 and
int8 runs so (`_packed_torch.py`), as do the embedding of tokens and the output layer, int8 by rows in any case. A table that is
both is stored once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _few_bits_torch, _packed_torch
from trimtune.engines._few_bits_torch import BITS
from trimtune.engines._int8_torch import SCALE, WEIGHTS
from trimtune.tasks import causal_lm
from trimtune.trim._few_bits import GRID, formats_of, linears, matrices
from trimtune.trim._grids import quantize8
from trimtune.trim._model_folder import base_of, straighten, write_beside

if TYPE_CHECKING:
    import torch

_LAYERS = "layers"
"""the key of the file's header: of each packed layer its inputs (the last byte of a row may be half empty), and whether
transformers keeps it transposed"""


def write(module: torch.nn.Module, source: Path, folder: Path, numerics: str) -> dict[str, Any]:
    """Write the runnable folder's model; facts: `matrices` and their `bits_per_weight` as stored, scales included; of mixed
    `packed` and `precision` too, output layer included.

    Raises:
        StepFailed: its weights are not of two or three values, or config.json doesn't name the formats of mixed.
        TrimtuneError: no plain linear layers in its blocks.
    """
    from safetensors.torch import save_file

    base = base_of(module)
    straighten(base)
    layers, state, group = matrices(base, numerics), base.state_dict(), getattr(base.config, GRID, {"group": 0})["group"]
    formats = dict.fromkeys(layers, numerics)
    if numerics == "mixed":
        layers, (formats, group) = linears(base), formats_of(base, "torch_eager")
    table, output = base.get_input_embeddings(), base.get_output_embeddings()
    told, nbytes, names = {}, 0, {layer: name for name, layer in base.named_modules()}
    for name, layer in layers.items():
        transposed, kind = hasattr(layer, "transposed"), formats[name]
        tensors = _few_bits_torch.stored(state.pop(f"{name}.weight"), kind, group)
        if kind in _few_bits_torch.STORED:
            told[name] = [layer.in_features, transposed]
        elif kind == "float" and transposed:
            tensors = {suffix: tensor.t() for suffix, tensor in tensors.items()}
        state |= {name + suffix: tensor for suffix, tensor in tensors.items()}
        nbytes += sum(tensor.nbytes for tensor in tensors.values())
    for layer in (table, output):
        weight = state.pop(f"{names[layer]}.weight")
        if layer is table or output.weight is not table.weight:
            state[f"{names[layer]}.weight"], state[names[layer] + SCALE] = quantize8(weight)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS,
              metadata={"format": "pt", _LAYERS: json.dumps(told)})
    base.config.save_pretrained(folder)
    write_beside(module, source, folder, causal_lm)
    count = sum(layer.weight.numel() for layer in layers.values())
    facts = {"matrices": len(layers), "bits_per_weight": round(8 * nbytes / count, 3)}
    return facts | (_few_bits_torch.runs({*formats.values(), "int8"}, numerics) if numerics == "mixed" else {})


def read(folder: Path) -> torch.nn.Module:
    """The model of such a folder, ready to run."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    state = load_file(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, "pt") as file:
        told = json.loads(file.metadata()[_LAYERS])
    for name, (inputs, transposed) in told.items():
        kind = next(kind for kind in _few_bits_torch.STORED if name + BITS[kind] in state)
        weight_NK = _few_bits_torch.unpack(state.pop(name + BITS[kind]), state.pop(name + SCALE), kind, inputs)
        state[f"{name}.weight"] = weight_NK.t().contiguous() if transposed else weight_NK
    for name in [key.removesuffix(BITS["int4"]) for key in state if key.endswith(BITS["int4"])]:
        state[f"{name}.weight"] = state.pop(name + BITS["int4"])
    return _packed_torch.filled(folder, state)
