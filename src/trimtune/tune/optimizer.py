"""AdamW on float32 master copies, whatever the number format of the working weights.

AdamW: Loshchilov & Hutter 2019 (decoupled weight decay), betas 0.9 and 0.999. Learning rate: linear warm-up over the
first share of the steps, then linear to zero. Gradients are clipped to norm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from trimtune.tune.parallel import like

if TYPE_CHECKING:
    import torch

WARM_UP = 0.06
WEIGHT_DECAY = 0.01
CLIP_NORM = 1.0


def scale_at(step: int, steps: int) -> float:
    """The factor on the learning rate at `step` (from 0) of `steps`."""
    warm = max(1, round(WARM_UP * steps))
    return (step + 1) / warm if step < warm else max(0.0, (steps - step) / max(1, steps - warm))


class Masters:
    """The trainable parameters' float32 masters and their optimizer.

    Where the working weights are float32 they are their own masters: no copies, no casts.

    Args:
        parameters: the working weights that train, after the model was cast to its working dtype.
        originals: their values in float32, before that cast.
        reduce: what to do with the float32 gradients before each step, where several processes fit together.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], originals: Sequence[torch.Tensor], learning_rate: float,
                 steps: int, reduce: Callable[[Sequence[torch.Tensor]], None] | None = None) -> None:
        import torch

        self.reduce = reduce
        self.working = list(parameters)
        self.apart = any(parameter.dtype != torch.float32 for parameter in self.working)
        self.masters = ([torch.nn.Parameter(original.detach().to(parameter.device, copy=True))
                         for original, parameter in zip(originals, self.working, strict=True)] if self.apart else self.working)
        decayed = [master for master in self.masters if master.ndim > 1]
        plain = [master for master in self.masters if master.ndim <= 1]
        self.optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": WEIGHT_DECAY},
                                            {"params": plain, "weight_decay": 0.0}], lr=learning_rate, fused=True)
        self.learning_rate, self.steps, self.step_count = learning_rate, steps, 0

    def gather(self) -> None:
        """Add the working gradients to the masters' float32 ones, and clear them: the pieces of a batch add up in float32."""
        if self.apart:
            for master, working in zip(self.masters, self.working, strict=True):
                if working.grad is not None:
                    found = working.grad.float()
                    master.grad = found if master.grad is None else master.grad.add_(found)
                    working.grad = None

    def step(self) -> None:
        """Clip, update the masters, copy them into the working weights, clear the gradients."""
        import torch

        self.gather()
        if self.reduce:
            for master in self.masters:
                if master.grad is None:
                    master.grad = torch.zeros_like(master)
            self.reduce([master.grad for master in self.masters if master.grad is not None])
        torch.nn.utils.clip_grad_norm_(self.masters, CLIP_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * scale_at(self.step_count, self.steps)
        self.optimizer.step()
        self.step_count += 1
        with torch.no_grad():
            if self.apart:
                torch._foreach_copy_([*self.working], [*self.masters])
            for master in self.masters:
                master.grad = None

    def decay(self, steps: int) -> float:
        """What the first `steps` steps leave of a decayed weight that had no gradient."""
        return math.prod(1 - self.learning_rate * scale_at(step, self.steps) * WEIGHT_DECAY for step in range(steps))

    def snapshot(self) -> list[torch.Tensor]:
        return [master.detach().clone() for master in self.masters]

    def state(self) -> dict[str, torch.Tensor]:
        """All that the next step follows from, by name: masters, AdamW's moments and counts. No copies."""
        moments = {f"moment.{index}.{name}": value for index, found in self.optimizer.state_dict()["state"].items()
                   for name, value in found.items()}
        return {**{f"master.{index}": master.detach() for index, master in enumerate(self.masters)}, **moments}

    def load(self, state: Mapping[str, torch.Tensor], step_count: int) -> None:
        """Go on from a `state` after `step_count` steps."""
        import torch

        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in state.items():
            if name.startswith("moment."):
                _, at, what = name.split(".")
                moments.setdefault(int(at), {})[what] = like(value, parameters[int(at)])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.step_count = step_count
        with torch.no_grad():
            for index, (master, working) in enumerate(zip(self.masters, self.working, strict=True)):
                master.copy_(like(state[f"master.{index}"], master))
                if self.apart and step_count:
                    working.copy_(master)
