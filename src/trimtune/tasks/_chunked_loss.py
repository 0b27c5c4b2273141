"""Cross-entropy over a large vocabulary without the logits of all tokens at once.

    loss = Σ_i w_i · (logsumexp(h_i Wᵀ) − (h_i Wᵀ)[label_i]),   w_i = 1 / (number of labels that count)

A language model's logits are its largest tensor by far: 8 × 256 tokens of GPT-2 are 412 MB in float32, and a plain loss
holds them three times. Here a chunk of tokens is projected, scored and turned into its gradient before the next one is
begun (the gradient of a sum of rows needs no other row), so the peak is one chunk. `plain` is the reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

IGNORED = -100
"""the label of a token that isn't learned"""


def plain(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    """The mean over labels other than -100, computed in float32 from all logits."""
    import torch

    return torch.nn.functional.cross_entropy((hidden_ND @ weight_VD.t()).float(), labels_N, ignore_index=IGNORED)


def chunked(hidden_ND: torch.Tensor, weight_VD: torch.Tensor, labels_N: torch.Tensor, rows: int = 0) -> torch.Tensor:
    """The same, `rows` tokens at a time (0: 256, on a GPU 4096); gradients reach `hidden_ND` and, if it learns, `weight_VD`.

    Tokens whose label is -100 are left out before anything is computed.
    """
    import torch

    if not torch.is_grad_enabled():  # a function's `needs_input_grad` is told of what could learn, whatever the mode
        hidden_ND, weight_VD = hidden_ND.detach(), weight_VD.detach()
    counted, rows = labels_N != IGNORED, rows or (256 if hidden_ND.device.type == "cpu" else 4096)
    loss: torch.Tensor = _function().apply(hidden_ND[counted], weight_VD, labels_N[counted], rows)
    return loss


def _function() -> Any:
    import torch

    class ChunkedCrossEntropy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, labels: torch.Tensor, rows: int) -> torch.Tensor:
            total = torch.zeros((), dtype=torch.float32, device=hidden.device)
            d_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
            d_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
            for at in range(0, len(hidden), rows):
                h, wanted = hidden[at:at + rows], labels[at:at + rows, None]
                logits = (h @ weight.t()).float()
                spread = logits.logsumexp(-1, keepdim=True)
                total += (spread - logits.gather(1, wanted)).sum()
                if d_hidden is None and d_weight is None:
                    continue
                d_logits = logits.sub_(spread).exp_().scatter_add_(1, wanted, torch.full_like(spread, -1.0)).to(h.dtype)
                if d_hidden is not None:
                    torch.mm(d_logits, weight, out=d_hidden[at:at + rows])
                if d_weight is not None:
                    d_weight += d_logits.t() @ h
            ctx.count, ctx.dtype = max(1, len(hidden)), weight.dtype
            ctx.save_for_backward(d_hidden, d_weight)
            return total / ctx.count

        @staticmethod
        def backward(ctx: Any, d_loss: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            d_hidden, d_weight = ctx.saved_tensors
            scale = d_loss / ctx.count
            return (None if d_hidden is None else d_hidden * scale.to(d_hidden.dtype),
                    None if d_weight is None else (d_weight * scale).to(ctx.dtype), None, None)

    return ChunkedCrossEntropy
