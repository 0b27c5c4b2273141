"""Language models with packed weights for PyTorch's own CPU kernels: linear layers in 8 or 4 bits, embeddings and output in 8.

int8: one scale per output; activations are rounded to 8 bits too, by each token's own largest, so that no token's answer
depends on its neighbors or on whether a cache was used (`torch._int_mm`). int4: groups of 32 inputs with a scale and an offset
in bf16, activations in bf16 (`_weight_int4pack_mm_for_cpu`); a layer whose shape that kernel does not take is int8.

    int8   y = a · s[n] · Σ_k q_x[k] q[n, k],  a = max_k |x[k]| / 127,  s[n] = max_k |W[n, k]| / 127
    int4   y = Σ_k x[k] (s[n, g] (c[n, k] − 8) + z[n, g]),  c ∈ 0 … 15,  g the group of k

For 768 → 3,072 on one core of a loaded Zen 4, in ms for 1 / 128 tokens: float32 2.3 / 37, bf16 1.2 / 7.8; `_int_mm` 0.30 / 6.6,
`quantized.linear_dynamic` 0.17 / 9.0 (one scale for all tokens, so they see each other), `_weight_int8pack_mm` in bf16 0.51 / 23
and in float32 7.2; int4 in bf16 0.17 / 28, in float32 15 (no vector kernels there). So int4 answers fast and reads slowly.
The embedding is int8 by rows, and where it is the output layer too, one table serves as both. Norms, biases and positions stay
float32. What is stored is plain; the kernels' own layouts depend on the CPU and are made on load.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _int8_torch, _sparse_torch
from trimtune.engines._int8_torch import SCALE, WEIGHTS
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.tasks import _pretrained, _shapes, causal_lm
from trimtune.trim import _groups
from trimtune.trim._grids import GROUP, codes4, quantize4, quantize8, seen8, takes4, values4
from trimtune.trim._model_folder import base_of, plain_state, write_beside

if TYPE_CHECKING:
    import torch

OFFSET = ".weight_offset"


def linear8_reference(x: torch.Tensor, weight_NK: torch.Tensor, scale_N: torch.Tensor,
                      bias_N: torch.Tensor | None) -> torch.Tensor:
    """What the int8 layer computes, in float32: [..., K] → [..., N]."""
    import torch

    return torch.nn.functional.linear(seen8(x), weight_NK * scale_N[:, None], bias_N)


def linear4_reference(x: torch.Tensor, bytes_NH: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor,
                      bias_N: torch.Tensor | None) -> torch.Tensor:
    """What the int4 layer computes, in float32: [..., K] → [..., N]."""
    import torch

    return torch.nn.functional.linear(x, values4(bytes_NH, scale, offset), bias_N)


def linear8(weight_NK: torch.Tensor, scale_N: torch.Tensor, bias_N: torch.Tensor | None) -> torch.nn.Module:
    """A linear layer over int8 weights: float32 [..., K] → float32 [..., N]."""
    layer: torch.nn.Module = _int8()(weight_NK, scale_N, bias_N)
    return layer


def linear4(bytes_NH: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor,
            bias_N: torch.Tensor | None) -> torch.nn.Module:
    """A linear layer over int4 weights, as `quantize4` gives them: float32 [..., K] → float32 [..., N]."""
    layer: torch.nn.Module = _int4()(bytes_NH, scale, offset, bias_N)
    return layer


def write(module: torch.nn.Module, source: Path, folder: Path, numerics: str) -> int:
    """Write the runnable folder's model; returns how many matrices were packed.

    Raises:
        TrimtuneError: the model has no plain linear layers.
    """
    import torch
    from safetensors.torch import save_file
    from transformers.pytorch_utils import Conv1D

    base, state = base_of(module), plain_state(module)
    table, output = base.get_input_embeddings(), base.get_output_embeddings()
    layers = {name: layer for name, layer in base.named_modules() if type(layer) in (torch.nn.Linear, Conv1D) or layer is table}
    if all(layer in (table, output) for layer in layers.values()):
        raise TrimtuneError(f"torch_eager: {type(base).__name__} has no plain linear layers that could run in {numerics}.",
                            "It packs torch.nn.Linear and GPT-2's Conv1D.", f"Leave the trim {numerics} out.")
    group = _groups.asked(source, GROUP)
    for name, layer in layers.items():
        weight = state.pop(name + ".weight")
        if layer is output and output.weight is table.weight:
            continue
        weight = weight.t() if isinstance(layer, Conv1D) else weight
        if numerics == "int4" and layer not in (table, output) and takes4(weight, group):
            state[name + ".weight"], state[name + SCALE], state[name + OFFSET] = quantize4(weight, group)
        else:
            state[name + ".weight"], state[name + SCALE] = quantize8(weight)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    base.config.save_pretrained(folder)
    write_beside(module, source, folder, causal_lm)
    return len(layers)


def read(folder: Path) -> torch.nn.Module:
    """The model of such a folder, stored with its zeros or without them; float32 copies of its packed matrices are never made."""
    return filled(folder, _sparse_torch.state_of(folder))


def filled(folder: Path, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The model of a folder's config with these tensors, of which those that have a scale are packed, ready to run.

    Raises:
        StepFailed: some of its weights are not among them.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    # what is packed has its shape in bytes, but its layer is replaced below
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()} if _shapes.marked(config) else {}
    model = _shapes.empty(AutoModelForCausalLM, config, shapes, None)
    table = model.get_input_embeddings()
    names = {layer: name for name, layer in model.named_modules()}
    output, shared = names[model.get_output_embeddings()], names[table]
    if output + SCALE not in state:
        state |= {output + part: state[shared + part] for part in (".weight", SCALE)}
    for name in [key.removesuffix(SCALE) for key in state if key.endswith(SCALE)]:
        weight, scale, bias = state.pop(name + ".weight"), state.pop(name + SCALE), state.pop(name + ".bias", None)
        if name == shared:
            model.set_submodule(name, _int8_torch.embedding(weight, scale))
        elif name + OFFSET in state:
            model.set_submodule(name, linear4(weight, scale, state.pop(name + OFFSET), bias))
        else:
            model.set_submodule(name, linear8(weight, scale, bias))
    model.load_state_dict(state, strict=False, assign=True)
    lacking = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if lacking:
        raise StepFailed(f"torch_eager: {folder / WEIGHTS} lacks {', '.join(lacking[:3])}")
    return _pretrained.with_adapter(model, folder, merge=False)


@cache
def _int8() -> Any:
    import torch

    class Int8Linear(torch.nn.Module):
        def __init__(self, weight_NK: torch.Tensor, scale_N: torch.Tensor, bias_N: torch.Tensor | None) -> None:
            super().__init__()
            self.weight_NK, self.scale_N, self.bias_N = weight_NK, scale_N, bias_N

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            step = (x.abs().amax(-1, keepdim=True) / 127).clamp_min(1e-12)
            found = torch._int_mm((x / step).round().to(torch.int8).flatten(0, -2), self.weight_NK.t())
            out = found.float().mul_(self.scale_N).view(*x.shape[:-1], -1).mul_(step)
            return out if self.bias_N is None else out.add_(self.bias_N)

    return Int8Linear


@cache
def _int4() -> Any:
    import torch

    class Int4Linear(torch.nn.Module):
        def __init__(self, bytes_NH: torch.Tensor, scale: torch.Tensor, offset: torch.Tensor,
                     bias_N: torch.Tensor | None) -> None:
            super().__init__()
            self.packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes4(bytes_NH).int(), 1)
            self.group = 2 * bytes_NH.shape[1] // scale.shape[1]
            self.grid, self.bias_N = torch.stack([scale, offset], 2).transpose(0, 1).contiguous(), bias_N

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            near = x.bfloat16().flatten(0, -2)
            found = torch.ops.aten._weight_int4pack_mm_for_cpu(near, self.packed, self.group, self.grid)
            out: torch.Tensor = found.to(x.dtype).view(*x.shape[:-1], -1)
            return out if self.bias_N is None else out.add_(self.bias_N)

    return Int4Linear
