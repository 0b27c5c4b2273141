"""Classifiers stored in few bits for PyTorch: int4, weights of two or three values as `binary` and `ternary` leave them, and
`mixed`, which has a format for each layer.

    binary    b = Σ_i c_i 2^i,  c ∈ {0, 1}       8 weights to a byte    Ŵ = s (2c − 1)
    ternary   b = Σ_i c_i 3^i,  c ∈ {0, 1, 2}    5 weights to a byte    Ŵ = s (c − 1)
    int4      2 weights to a byte, groups of inputs with a scale and an offset (`trim/_grids.py`)
    int8      1 weight to a byte, a scale per output

binary and ternary are *stored* so and no more: loading unpacks each matrix to the float32 that it was, bit for bit, and ordinary
products run. The bytes on disk are real; speed, and memory once loaded, are those of float32. int4 runs as it lies, by torch's
kernel with activations in bf16, and a layer whose shape that kernel does not take is int8 with a scale per token.
Embeddings are int8 by rows; norms, biases and the head stay float32, with binary and ternary the pooler too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _int8_torch, _packed_torch
from trimtune.engines._int8_torch import SCALE, WEIGHTS
from trimtune.errors import StepFailed
from trimtune.tasks import _shapes
from trimtune.trim import _grids, _groups
from trimtune.trim._few_bits import GRID, formats_of, grouped, linears, matrices
from trimtune.trim._model_folder import base_of, plain_state, write_beside

if TYPE_CHECKING:
    import torch

BITS = {"binary": ".weight_bits", "ternary": ".weight_trits", "int4": ".weight_nibbles"}
_DIGITS = {"binary": (2, 8), "ternary": (3, 5)}
"""values of a weight, and weights of a byte"""
STORED = tuple(_DIGITS)
"""formats that are unpacked on load"""
_RUNS = {"binary": "fp32", "ternary": "fp32", "float": "fp32"}
"""the number format of products, where it isn't the one that is stored"""
_INPUTS = "inputs"
"""the key of the file's header that tells the inputs of each packed layer: the last byte of a row may be half empty"""


def pack(weight_NK: torch.Tensor, kind: str, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights on the grid as bytes uint8 [N, ⌈K / 8⌉] or [N, ⌈K / 5⌉], and scales bf16 [N, groups].

    Raises:
        StepFailed: they lie elsewhere.
    """
    import torch

    values, digits = _DIGITS[kind]
    scale = grouped(weight_NK.abs(), group).amax(2).bfloat16()
    codes = (weight_NK >= 0).to(torch.uint8) if kind == "binary" else (weight_NK.sign() + 1).to(torch.uint8)
    codes = torch.nn.functional.pad(codes, (0, -codes.shape[1] % digits)).unflatten(1, (-1, digits))
    packed = (codes * _powers(values, digits)).sum(2, dtype=torch.uint8)
    if not torch.equal(unpack(packed, scale, kind, weight_NK.shape[1]), weight_NK):
        raise StepFailed(f"torch_eager: a matrix [{len(weight_NK)}, {weight_NK.shape[1]}] is not {kind} in groups of {group}")
    return packed, scale


def unpack(packed: torch.Tensor, scale: torch.Tensor, kind: str, inputs: int) -> torch.Tensor:
    """The weights, float32 [N, K]."""
    values, digits = _DIGITS[kind]
    codes = (packed[..., None] // _powers(values, digits) % values).flatten(1)[:, :inputs]
    signs = codes.float().mul_(2 / (values - 1)).sub_(1)
    return signs.unflatten(1, (scale.shape[1], -1)).mul_(scale.float()[..., None]).flatten(1)


def write(module: torch.nn.Module, source: Path, folder: Path, numerics: str) -> dict[str, Any]:
    """Write the runnable folder's model.

    Returns:
        `packed`, `precision` (what runs), `matrices` in the format asked for (with mixed: in all formats), and their
        `bits_per_weight` as stored, scales included.

    Raises:
        StepFailed: it should be binary, ternary or mixed, and is not.
        TrimtuneError: no plain linear layers.
    """
    import torch
    from safetensors.torch import save_file

    base, state = base_of(module), plain_state(module)
    formats, group = _formats(base, numerics, source)
    inner = {f"{base.base_model_prefix}.{name}": layer for name, layer in base.base_model.named_modules()}
    inputs, nbytes, sizes = {}, {}, {}
    for name, layer in inner.items():
        weight = state.get(name + ".weight")
        if weight is None or not isinstance(layer, torch.nn.Linear | torch.nn.Embedding):
            continue
        kind = formats.get(name, "int8")  # an embedding has none of its own
        tensors = stored(state.pop(name + ".weight"), kind, group)
        state |= {name + suffix: tensor for suffix, tensor in tensors.items()}
        if kind in BITS:
            inputs[name] = weight.shape[1]
        if kind == numerics or (numerics == "mixed" and name in formats):
            nbytes[name], sizes[name] = sum(tensor.nbytes for tensor in tensors.values()), weight.numel()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS,
              metadata={"format": "pt", _INPUTS: json.dumps(inputs)})
    base.config.save_pretrained(folder)
    write_beside(module, source, folder)
    return {**runs({formats[name] for name in sizes}, numerics), "matrices": len(sizes),
            "bits_per_weight": round(8 * sum(nbytes.values()) / max(sum(sizes.values()), 1), 3)}


def runs(kinds: set[str], numerics: str) -> dict[str, str]:
    """`packed`, and the `precision` that runs (`numerics` if there are no matrices), of matrices in these formats."""
    return {"packed": "stored" if kinds & _DIGITS.keys() else "packed",
            "precision": "+".join(sorted({_RUNS.get(kind, kind) for kind in kinds})) or numerics}


def _formats(base: Any, numerics: str, source: Path) -> tuple[dict[str, str], int]:
    """The format of each linear layer by name, and how many inputs share a scale."""
    layers, inside, grid = linears(base), matrices(base, numerics), getattr(base.config, GRID, {"group": 0})
    if numerics == "int4":
        group = _groups.asked(source, _grids.GROUP)
        return {name: "int4" if _grids.takes4(layer.weight, group) else "int8" for name, layer in layers.items()}, group
    if numerics != "mixed":
        return {name: numerics if name in inside else "float" for name in layers}, grid["group"]
    return formats_of(base, "torch_eager")


def stored(weight: torch.Tensor, kind: str, group: int) -> dict[str, torch.Tensor]:
    """What is stored of a matrix [N, K], by the ends of the names."""
    if kind == "float":
        return {".weight": weight}
    if kind == "int8":
        return dict(zip((".weight", SCALE), _grids.quantize8(weight), strict=True))
    if kind == "int4":
        return dict(zip((BITS[kind], SCALE, _packed_torch.OFFSET), _grids.quantize4(weight, group), strict=True))
    return dict(zip((BITS[kind], SCALE), pack(weight, kind, group), strict=True))


def read(folder: Path) -> torch.nn.Module:
    """The model of such a folder, ready to run."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config, state = AutoConfig.from_pretrained(folder, trust_remote_code=False), load_file(folder / WEIGHTS)
    with safe_open(folder / WEIGHTS, "pt") as file:
        inputs = json.loads(file.metadata()[_INPUTS])
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    shapes |= {f"{name}.weight": (shapes[name + SCALE][0], count) for name, count in inputs.items()}
    model = _shapes.empty(AutoModelForSequenceClassification, config, shapes, "sdpa")
    for name in [key.removesuffix(SCALE) for key in state if key.endswith(SCALE)]:
        kind = next((kind for kind, suffix in BITS.items() if name + suffix in state), "int8")
        packed, scale = state.pop(name + BITS.get(kind, ".weight")), state.pop(name + SCALE)
        if kind in _DIGITS:
            state[name + ".weight"] = unpack(packed, scale, kind, inputs[name])
        elif kind == "int4":
            offset = state.pop(name + _packed_torch.OFFSET)
            model.set_submodule(name, _packed_torch.linear4(packed, scale, offset, state.pop(name + ".bias", None)))
        elif isinstance(model.get_submodule(name), torch.nn.Linear):
            model.set_submodule(name, _packed_torch.linear8(packed, scale, state.pop(name + ".bias", None)))
        else:
            model.set_submodule(name, _int8_torch.embedding(packed, scale))
    return _int8_torch.filled(model, state, folder)


def _powers(values: int, digits: int) -> torch.Tensor:
    import torch

    return torch.tensor([values**place for place in range(digits)], dtype=torch.uint8)
