"""One fit on several processes: the same rows make the same optimizer step as on one.

    torchrun --nproc-per-node 2 -m trimtune tune train.csv --method lora --out fitted/

Every process reads the data and the base model by itself, so several machines need no common disk; the first one prints,
keeps the checkpoints, scores and writes. Each global batch is dealt out among the processes; a process whose share is
n_r of the N rows (or learned tokens) weighs its mean loss by P · n_r / N, so that the mean over the P processes is the mean
over all of them:

    ∇L = 1/P · Σ_r ∇(P · n_r / N · L_r)        L_r the mean over the n_r rows of process r

- Methods that freeze something: every process has the model, and the gradients of what learns are averaged in one
  all-reduce (data parallel, Li et al. 2020, arXiv 2006.15704).
- Full fits: each process holds 1/P of every block's weights, gradients and moments (FSDP2, `fully_shard`; Zhao et al.
  2023, arXiv 2304.11277). Weights and optimizer are float32, the blocks compute in the working format. Saving and
  checkpoints gather the whole on the CPU.

It lies in `tune`, and not in a room behind it, because the loop itself is what has to know its share of a batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from trimtune.tune import device

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def launched() -> tuple[int, int]:
    """This process's rank and their number as torchrun tells them; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


@dataclass(frozen=True)
class Team:
    """The processes that make one fit together; alone, all of it costs nothing."""

    rank: int = 0
    size: int = 1

    def pieces(self, batch: Sequence[int], at_once: int = 0, counts: Sequence[int] = ()) -> list[tuple[list[int], float]]:
        """This process's share in pieces of at most `at_once` rows (0: one piece), each with the weight of its mean loss.

        That is its share of the batch's rows, or of their `counts` (by row index), so that the sum is the batch's mean.

        All processes get the same number of pieces, since each must take part in every pass: one without rows takes the
        first with weight 0.
        """
        mine, largest = list(batch[self.rank::self.size]), -(-len(batch) // self.size)
        count = -(-largest // (at_once or largest))
        rows = -(-largest // count)
        cut = [mine[at * rows:(at + 1) * rows] for at in range(count)]

        def much(rows: Sequence[int]) -> int:
            return sum(counts[row] for row in rows) if counts else len(rows)

        return [(piece or [batch[0]], self.size * much(piece) / much(batch)) for piece in cut]

    def average(self, gradients: Sequence[torch.Tensor]) -> None:
        """Each gradient becomes its mean over the processes, in place."""
        import torch

        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))

    def total(self, count: float) -> float:
        """The sum over the processes."""
        return sum(self.gathered(count)) if self.size > 1 else count

    def gathered(self, mine: T) -> list[T]:
        """Everyone's, in the order of their ranks."""
        import torch

        everyone = [mine] * self.size
        if self.size > 1:
            torch.distributed.all_gather_object(everyone, mine)
        return everyone

    def of_first(self, mine: T) -> T:
        """What the first process has."""
        import torch

        carried = [mine]
        if self.size > 1:
            torch.distributed.broadcast_object_list(carried, src=0)
        return carried[0]


ALONE = Team()


def join(processes: int) -> Team:
    """The team of a fit that torchrun started on `processes` processes; this returns when all are there."""
    import torch

    if processes == 1:
        return ALONE
    place = device.here()
    if place.type == "cpu":  # said aloud, since torch built for CUDA would take NCCL here too
        torch.distributed.init_process_group("gloo")
    else:  # what is no tensor travels by the CPU, without waiting for the GPU
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl", device_id=place)
    return Team(torch.distributed.get_rank(), torch.distributed.get_world_size())


def leave(team: Team) -> None:
    """To be called at the end: returns when all are there, so that none is gone while another still needs its part."""
    import torch

    if team.size > 1:
        team.gathered(None)
        torch.distributed.destroy_process_group()


def spread(model: torch.nn.Module, dtype: torch.dtype, team: Team) -> Callable[[Sequence[torch.Tensor]], None] | None:
    """Put `model` on this process's device, ready to train in `dtype` with this team.

    Returns what each step must do with the gradients, if anything.
    """
    import torch

    if team.size == 1:
        device.put(model, dtype)
        return None
    torch.manual_seed(torch.initial_seed() + team.rank)  # the same dropout on every share would be no dropout of its own
    if all(parameter.requires_grad for parameter in model.parameters()):
        model.to(device.here())
        shard(model, dtype)
        return None
    device.put(model, dtype)
    return team.average


def shard(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """FSDP2: every block by itself, so that only one is whole at a time, then what is left."""
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    mesh = torch.distributed.device_mesh.init_device_mesh(device.of(model).type, (torch.distributed.get_world_size(),))
    for layers in [module for module in model.modules() if isinstance(module, torch.nn.ModuleList)]:
        for block in layers:
            fully_shard(block, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A sharded tensor gathered (every process must ask), any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def held(tensor: torch.Tensor) -> torch.Tensor:
    """This process's part of a sharded tensor, any other as it is."""
    part: torch.Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def like(tensor: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A copy of a whole tensor, on the device of `other` and sharded as `other` is."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    if isinstance(other, DTensor) and tensor.shape == other.shape:
        return distribute_tensor(tensor.to(other.device), other.device_mesh, other.placements)
    return tensor.to(other.device, copy=True)
