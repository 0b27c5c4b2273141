"""The loss of a language model that learns from a teacher too, without the logits of all tokens at once.

    L = 1/N Σ_i (1 − a) · CE(z_i, label_i) + a · τ² · KL(softmax(y_i / τ) ‖ softmax(z_i / τ))
    z = h Wᵀ [N, V],  y = g Uᵀ [N, V]       h, g: the states of student [N, D] and teacher [N, E] before their output layers

    ∂L/∂z_i = 1/N [(1 − a) (softmax(z_i) − onehot(label_i)) + a · τ (softmax(z_i / τ) − softmax(y_i / τ))]

Source: Hinton et al. 2015 (arXiv 1503.02531), section 2. As in `_chunked_loss.py` a chunk of tokens is projected by both, scored
and turned into its gradient before the next one is begun. `plain` is the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def loss_of(share: float, temperature: float) -> Callable[..., torch.Tensor]:
    """L with this a and τ, of a language model's answers (states, output layer, next tokens) and its teacher's (states,
    output layer). Where an output layer is None, logits [N, V] stand for the states.
    """
    def loss(states_ND: torch.Tensor, weight_VD: torch.Tensor | None, labels_N: torch.Tensor, wanted_NE: torch.Tensor,
             wanted_VE: torch.Tensor | None) -> torch.Tensor:
        return chunked(states_ND, weight_VD, labels_N, wanted_NE, wanted_VE, share, temperature)

    return loss


def plain(states_ND: torch.Tensor, weight_VD: torch.Tensor | None, labels_N: torch.Tensor, wanted_NE: torch.Tensor,
          wanted_VE: torch.Tensor | None, share: float, temperature: float) -> torch.Tensor:
    """L from all logits, in float32. Where a weight is None, what stands for its states are logits [N, V]."""
    import torch

    logits_NV, theirs_NV = _projected(states_ND, weight_VD), _projected(wanted_NE, wanted_VE)
    hard = torch.nn.functional.cross_entropy(logits_NV, labels_N)
    soft = torch.nn.functional.kl_div((logits_NV / temperature).log_softmax(-1), (theirs_NV / temperature).softmax(-1),
                                      reduction="batchmean")
    return (1 - share) * hard + share * temperature**2 * soft


def chunked(states_ND: torch.Tensor, weight_VD: torch.Tensor | None, labels_N: torch.Tensor, wanted_NE: torch.Tensor,
            wanted_VE: torch.Tensor | None, share: float, temperature: float, rows: int = 0) -> torch.Tensor:
    """The same, `rows` tokens at a time (0: 256, on a GPU 4096); gradients reach the student's states and weight."""
    rows = rows or (256 if states_ND.device.type == "cpu" else 4096)
    loss: torch.Tensor = _function().apply(states_ND, weight_VD, labels_N, wanted_NE, wanted_VE, share, temperature, rows)
    return loss


def _projected(states: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    return (states if weight is None else states @ weight.t()).float()


def _function() -> Any:
    import torch

    class TaughtCrossEntropy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor | None, labels: torch.Tensor, wanted: torch.Tensor,
                    wanted_weight: torch.Tensor | None, share: float, temperature: float, rows: int) -> torch.Tensor:
            total = torch.zeros((), dtype=torch.float32, device=states.device)
            d_states = torch.empty_like(states)
            d_weight = None if weight is None or not ctx.needs_input_grad[1] else torch.zeros_like(weight, dtype=torch.float32)
            for at in range(0, len(states), rows):
                h, label = states[at:at + rows], labels[at:at + rows, None]
                logits, theirs = _projected(h, weight), _projected(wanted[at:at + rows], wanted_weight) / temperature
                log_1, log_t, log_y = logits.log_softmax(-1), (logits / temperature).log_softmax(-1), theirs.log_softmax(-1)
                p_y = log_y.exp()
                total -= (1 - share) * log_1.gather(1, label).sum()
                total += share * temperature**2 * (p_y * (log_y - log_t)).sum()
                d_logits = log_1.exp_().scatter_add_(1, label, torch.full_like(label, -1.0, dtype=log_1.dtype)).mul_(1 - share)
                d_logits = d_logits.add_(log_t.exp_().sub_(p_y), alpha=share * temperature).to(h.dtype)
                d_states[at:at + rows] = d_logits if weight is None else d_logits @ weight
                if d_weight is not None:
                    d_weight += d_logits.t() @ h
            ctx.count, ctx.dtype = max(1, len(states)), states.dtype if weight is None else weight.dtype
            ctx.save_for_backward(d_states, d_weight)
            return total / ctx.count

        @staticmethod
        def backward(ctx: Any, *d_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            d_states, d_weight = ctx.saved_tensors
            scale = d_loss[0] / ctx.count
            return (d_states * scale.to(d_states.dtype), None if d_weight is None else (d_weight * scale).to(ctx.dtype),
                    *[None] * 6)

    return TaughtCrossEntropy
