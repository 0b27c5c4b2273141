"""torch.compile as the engines use it: whole graphs, sizes as symbols, and an error where torch would go on uncompiled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_GRAPHS = 4
"""two are needed (one row, several); a few more are allowed, and one too many is an error"""


def compiled(module: torch.nn.Module, **options: Any) -> Any:
    """The module compiled by inductor when it is first called.

    Args:
        options: of `torch._inductor.config`, beside the usual ones. With `freezing` the weights become constants of each graph,
            in the layout that its kernels want; inductor does that only where no gradient is wanted when it is first called.
    """
    import torch
    import torch._inductor.config

    # compile here: inductor would start a pool of processes, which a step that ends at once leaves no time to close
    torch._inductor.config.compile_threads = 1
    compile_: Any = torch.compile  # torch's overloads lack two of its arguments
    # cpp_wrapper: kernels and the calls between them are one C++ file, which is compiled and called faster than one per kernel
    return compile_(module, fullgraph=True, recompile_limit=_GRAPHS, isolate_recompiles=True,
                    options={"cpp_wrapper": True, **options})


def leave_open(tensors: Sequence[torch.Tensor], dimension: int | None) -> None:
    """Make a dimension a symbol of the graph, where one is given."""
    import torch

    for tensor in tensors if dimension is not None else ():
        torch._dynamo.mark_dynamic(tensor, dimension)
