"""Language models stored in one bit or three values for PyTorch, as `binary` and `ternary` leave them (`_few_bits_torch.py`).

Blocks lie in 1 or 1.6 bits per weight and are unpacked on load to the float32 that they were, bit for bit; embeddings and output
layer are int8 by rows and run so (`_packed_torch.py`). A table that is both is stored once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _few_bits_torch, _packed_torch
from trimtune.engines._few_bits_torch import BITS
from trimtune.engines._int8_torch import SCALE, WEIGHTS
from trimtune.tasks import causal_lm
from trimtune.trim._few_bits import GRID, matrices
from trimtune.trim._grids import quantize8
from trimtune.trim._model_folder import base_of, straighten, write_beside

if TYPE_CHECKING:
    import torch

_LAYERS = "layers"
"""the key of the file's header: of each packed layer its inputs (the last byte of a row may be half empty), and whether
transformers keeps it transposed"""


def write(module: torch.nn.Module, source: Path, folder: Path, numerics: str) -> dict[str, Any]:
    """Write the runnable folder's model; facts: `matrices` and their `bits_per_weight` as stored, scales included.

    Raises:
        StepFailed: its weights are not of two or three values.
        TrimtuneError: no plain linear layers in its blocks.
    """
    from safetensors.torch import save_file

    base = base_of(module)
    straighten(base)
    layers, state, group = matrices(base, numerics), base.state_dict(), getattr(base.config, GRID, {"group": 0})["group"]
    table, output = base.get_input_embeddings(), base.get_output_embeddings()
    told, nbytes, names = {}, 0, {layer: name for name, layer in base.named_modules()}
    for name, layer in layers.items():
        packed, scale = _few_bits_torch.pack(state.pop(f"{name}.weight"), numerics, group)
        state[name + BITS[numerics]], state[name + SCALE] = packed, scale
        told[name], nbytes = [layer.in_features, hasattr(layer, "transposed")], nbytes + packed.nbytes + scale.nbytes
    for layer in (table, output):
        weight = state.pop(f"{names[layer]}.weight")
        if layer is table or output.weight is not table.weight:
            state[f"{names[layer]}.weight"], state[names[layer] + SCALE] = quantize8(weight)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS,
              metadata={"format": "pt", _LAYERS: json.dumps(told)})
    base.config.save_pretrained(folder)
    write_beside(module, source, folder, causal_lm)
    count = sum(layer.weight.numel() for layer in layers.values())
    return {"matrices": len(layers), "bits_per_weight": round(8 * nbytes / count, 3)}


def read(folder: Path) -> torch.nn.Module:
    """The model of such a folder, ready to run."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    state = load_file(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, "pt") as file:
        told = json.loads(file.metadata()[_LAYERS])
    for name, (inputs, transposed) in told.items():
        kind = next(kind for kind, suffix in BITS.items() if name + suffix in state)
        weight_NK = _few_bits_torch.unpack(state.pop(name + BITS[kind]), state.pop(name + SCALE), kind, inputs)
        state[f"{name}.weight"] = weight_NK.t().contiguous() if transposed else weight_NK
    return _packed_torch.filled(folder, state)
