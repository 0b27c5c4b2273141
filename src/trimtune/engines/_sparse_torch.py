"""Weights stored without their zeros: for each matrix one bit per weight and the weights that aren't zero, in safetensors.

    name.bits    uint8 [⌈n / 8⌉]    bit i, the highest first: is weight i, in row order, not zero?
    name.values  [v]                those weights, in row order, in the number format that runs: float32, bf16 or int8
    name.shape   int64 [d]

A weight counts as zero if all its bits are 0, so -0.0 is kept and what is read equals what was written, bit for bit. A tensor
that would not become smaller stays as it is. On load the zeros are put back: memory and products are those of dense weights.

Kernels that use zeros were tried on one core of a busy Zen 4 and left out. For 384 → 1,536 with 80% zeros, 32 / 1,024 tokens, in
times of the dense float32 product: CSR by columns 0.69 / 1.33, CSR in torch's linear 14 / 5, dense bf16 0.6 / 0.48, dense int8
0.48 / 0.31. At 90% zeros CSR ties int8 for 32 tokens (0.46), and takes thrice as long for 1,024 (0.87). 2:4 is for GPUs there.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.tasks._shapes import WEIGHTS

if TYPE_CHECKING:
    import torch

BITS, VALUES, SHAPE = ".bits", ".values", ".shape"
_HEADER_BYTES = 256
"""what two more tensors take in a file's header, and the shape"""


def pack(dense: torch.Tensor) -> dict[str, torch.Tensor]:
    """The three tensors of a tensor of 8, 16 or 32 bits, by the ends of their names."""
    import numpy as np
    import torch

    flags = _as_integers(dense).flatten() != 0
    return {BITS: torch.from_numpy(np.packbits(flags.numpy())), VALUES: dense.flatten()[flags],
            SHAPE: torch.tensor(dense.shape, dtype=torch.int64)}


def unpack(bits: torch.Tensor, values: torch.Tensor, shape: torch.Tensor) -> torch.Tensor:
    """The dense tensor that they were made from."""
    import numpy as np
    import torch

    dense = torch.zeros(shape.tolist(), dtype=values.dtype)
    flags = np.unpackbits(bits.numpy(), count=dense.numel()).astype(bool)
    dense.view(-1)[torch.from_numpy(flags)] = values
    return dense


def pack_file(folder: Path) -> dict[str, Any]:
    """Store `model.safetensors` of a folder without its zeros; facts: `sparse_matrices` that became smaller, `dense_bytes`
    and `bytes` of the file.

    Raises:
        TrimtuneError: none did.
    """
    from safetensors.torch import load_file, save_file

    path = folder / WEIGHTS
    state, dense_bytes = load_file(path), path.stat().st_size
    stored: dict[str, torch.Tensor] = {}
    matrices = 0
    for name, tensor in state.items():
        packed = pack(tensor) if tensor.ndim > 1 and tensor.element_size() <= 4 else {}
        if packed and sum(part.nbytes for part in packed.values()) + _HEADER_BYTES < tensor.nbytes:
            stored |= {name + end: part for end, part in packed.items()}
            matrices += 1
        else:
            stored[name] = tensor
    if not matrices:
        raise TrimtuneError("torch_eager: no weight matrix has enough zeros to be smaller without them.",
                            "A bit per weight and what isn't zero: that pays from 1 zero in 8 (int8), 16 (bf16) or 32 weights.",
                            "Put prune_weights before it: [prune_weights, sparse].")
    path.unlink()  # the tensors above are a view of the old file, which may also be shared
    save_file(stored, path, metadata={"format": "pt"})
    return {"sparse_matrices": matrices, "dense_bytes": dense_bytes, "bytes": path.stat().st_size}


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    """The tensors of a folder's `model.safetensors` by name, with their zeros, whether it was stored without them or not."""
    from safetensors.torch import load_file

    state = load_file(folder / WEIGHTS)
    for name in [key.removesuffix(BITS) for key in state if key.endswith(BITS)]:
        state[name] = unpack(*(state.pop(name + end) for end in (BITS, VALUES, SHAPE)))
    return state


def _as_integers(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    return tensor.contiguous().view({4: torch.int32, 2: torch.int16, 1: torch.int8}[tensor.element_size()])
