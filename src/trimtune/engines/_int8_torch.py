"""int8 for PyTorch: weights as int8 and scales in safetensors, linear layers by the CPU's int8 kernels (fbgemm or oneDNN).

Of the int8 paths that torch has on CPUs, `quantized.linear_dynamic` is the fastest. For 32 / 1,024 rows of 384 → 1,536 on
2 cores of Zen 4 it takes 0.07 / 1.7 ms; `onednn.qlinear_pointwise` with quantizing around it 0.12 / 1.9, per-token `_int_mm`
0.09 / 3.0, torchao's Int8DynamicActivationInt8Weight in eager mode 0.42 / 4.5 (float32: 0.31 / 6.4). Each is off by 1.0 to
1.3% of a random product's norm; per-token scales move MiniLM's logits hardly less than per-tensor ones.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.engines import _sparse_torch
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.tasks import _pretrained, _shapes
from trimtune.tasks import text_classification as task
from trimtune.trim import _grids
from trimtune.trim._model_folder import base_of, plain_state, write_beside

if TYPE_CHECKING:
    import torch

WEIGHTS = "model.safetensors"
SCALE = ".weight_scale"


def linear_reference(x: torch.Tensor, weight_NK: torch.Tensor, scale_N: torch.Tensor,
                     bias_N: torch.Tensor | None) -> torch.Tensor:
    """What the packed kernel computes, in float32: activations to uint8 by their own range, [..., K] → [..., N]."""
    import torch

    return torch.nn.functional.linear(_grids.seen8_together(x), weight_NK * scale_N[:, None], bias_N)


def linear(weight_NK: torch.Tensor, scale_N: torch.Tensor, bias_N: torch.Tensor | None) -> torch.nn.Module:
    """A linear layer over packed int8 weights: float32 [..., K] → float32 [..., N]."""
    import torch

    with warnings.catch_warnings():
        # torch plans to drop these tensor types; the packed kernel has no other door yet
        warnings.simplefilter("ignore", UserWarning)
        zeros = torch.zeros(len(scale_N), dtype=torch.long)
        tensor = torch._make_per_channel_quantized_tensor(weight_NK, scale_N.double(), zeros, 0)
    packed = torch.ops.quantized.linear_prepack(tensor, bias_N)
    seven_bits = torch.backends.quantized.engine in ("x86", "fbgemm", "onednn") and not torch.cpu._is_vnni_supported()

    class Int8Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = torch.ops.quantized.linear_dynamic(x, packed, seven_bits)
            return out

    return Int8Linear()


def embedding(weight_VD: torch.Tensor, scale_V: torch.Tensor) -> torch.nn.Module:
    """An embedding over int8 rows: int64 [...] → float32 [..., D]."""
    import torch

    class Int8Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # named `weight`, since PEFT finds the word embeddings by a parameter of the vocabulary's length
            self.weight = torch.nn.Parameter(weight_VD, requires_grad=False)
            self.scale = torch.nn.Parameter(scale_V, requires_grad=False)

        def forward(self, ids: torch.Tensor) -> torch.Tensor:
            return self.weight[ids].float() * self.scale[ids].unsqueeze(-1)

    return Int8Embedding()


def write(module: torch.nn.Module, source: Path, folder: Path) -> int:
    """Write the runnable folder's model; returns how many matrices became int8. The head stays in float32.

    Raises:
        TrimtuneError: the model has no plain linear layers.
    """
    import torch
    from safetensors.torch import save_file

    base, state = base_of(module), plain_state(module)
    inner = {f"{base.base_model_prefix}.{name}": layer for name, layer in base.base_model.named_modules()}
    names = [name for name, layer in inner.items() if isinstance(layer, torch.nn.Linear | torch.nn.Embedding)]
    if not any(isinstance(inner[name], torch.nn.Linear) for name in names):
        raise TrimtuneError(f"torch_eager: {type(base).__name__} has no plain linear layers that could run in int8.",
                            "int8 packs torch.nn.Linear and torch.nn.Embedding.", "Use int8 on onnx_runtime or openvino_ir.")
    for name in names:
        state[name + ".weight"], state[name + SCALE] = _grids.quantize8(state[name + ".weight"])
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    base.config.save_pretrained(folder)
    write_beside(module, source, folder)
    return len(names)


def read(folder: Path) -> torch.nn.Module:
    """The model of such a folder; float32 copies of its int8 matrices are never made."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config, state = AutoConfig.from_pretrained(folder, trust_remote_code=False), _sparse_torch.state_of(folder)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    model = _shapes.empty(AutoModelForSequenceClassification, config, shapes, "sdpa")
    for name in [key.removesuffix(SCALE) for key in state if key.endswith(SCALE)]:
        weight, scale = state.pop(name + ".weight"), state.pop(name + SCALE)
        is_linear, bias = isinstance(model.get_submodule(name), torch.nn.Linear), state.pop(name + ".bias", None)
        model.set_submodule(name, linear(weight, scale, bias) if is_linear else embedding(weight, scale))
    return filled(model, state, folder)


def filled(model: Any, state: dict[str, torch.Tensor], folder: Path) -> torch.nn.Module:
    """The model without numbers with those of its parameters that are left, and the folder's adapter, ready to run.

    Raises:
        StepFailed: some are in neither.
    """
    model.load_state_dict(state, strict=False, assign=True)
    lacking = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if lacking:
        raise StepFailed(f"torch_eager: {folder / WEIGHTS} lacks {', '.join(lacking[:3])}")
    if (folder / task.ADAPTER).is_dir():
        model = _pretrained.beside_adapter(model, folder)
    ready: torch.nn.Module = model.eval()
    return ready.requires_grad_(False)
