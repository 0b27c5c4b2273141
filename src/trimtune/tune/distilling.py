"""What a teacher adds to a fit: its answer to each training row, beside the row's label.

    L = (1 - a) · CE(z, y) + a · τ² · KL(softmax(z_t / τ) ‖ softmax(z / τ))      z, z_t: logits [B, C] of student and teacher

Source: Hinton et al. 2015 (arXiv 1503.02531), section 2. The teacher answers every row once, before the fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trimtune.tune import batches
from trimtune.tune.feeds import Answered, Feed

if TYPE_CHECKING:
    import torch

_TOGETHER = 32
"""rows that the teacher answers in one pass"""


def answers(teacher: Feed) -> torch.Tensor:
    """The teacher's logits of all rows, float32 [N, C] on the CPU."""
    import torch

    found: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for batch in batches.by_length(teacher.lengths, _TOGETHER):
            found |= dict(zip(batch, teacher.answered(batch)[0].float().cpu(), strict=True))
    return torch.stack([found[row] for row in range(len(found))]).clone()


def taught(feed: Feed, wanted_NC: torch.Tensor) -> Feed:
    """The feed with what the teacher answered, as one more of what the loss takes."""

    def answered(batch: Sequence[int]) -> Answered:
        logits_BC, *truth = feed.answered(batch)
        return (logits_BC, *truth, wanted_NC[list(batch)].to(logits_BC.device))

    return replace(feed, answered=answered)


def loss_of(hard: Callable[..., torch.Tensor], share: float, temperature: float) -> Callable[..., torch.Tensor]:
    """The loss of a taught fit: `share` (a) of it is the teacher's, the rest the task's own `hard` loss.

    It takes logits [B, C], labels [B] and the teacher's logits [B, C]; a mean over rows.
    """
    import torch

    def loss(logits_BC: torch.Tensor, labels_B: torch.Tensor, wanted_BC: torch.Tensor) -> torch.Tensor:
        log_BC = (logits_BC.float() / temperature).log_softmax(-1)
        soft = torch.nn.functional.kl_div(log_BC, (wanted_BC / temperature).softmax(-1), reduction="batchmean")
        return (1 - share) * hard(logits_BC, labels_B) + share * temperature**2 * soft

    return loss
