"""The token embedding cut to the rows that the texts use, while it trains.

In a small encoder the embedding is half of all parameters, and a fit's texts use a small part of its rows. A row whose token
never comes has no gradient, so AdamW only lets it decay:

    w_T = w_0 · Π_t (1 − η_t λ)        η_t the learning rate of step t, λ the weight decay

The rows that are used train as a table of their own; the others get their decay at once, at the end. The whole table is the
reference: the result is the same, without gradients, moments and optimizer passes for words that nobody wrote. Of a factorised
embedding it is the narrow half that has a row per token.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trimtune.tasks import _shapes

if TYPE_CHECKING:
    import torch


@dataclass
class Table:
    """A model's token embedding, cut in place: `weight` is the whole of it, `used` the rows that train, ascending."""

    name: str
    embedding: Any
    weight: torch.Tensor
    used: torch.Tensor

    def full(self, learned: torch.Tensor, decay: float) -> torch.Tensor:
        """[V, D] float32: the rows as learned ([len(used), D]), and all others as `decay` leaves them."""
        table = self.weight.float() * decay
        table[self.used] = learned.to(table)
        return table

    def undo(self) -> None:
        """Give the model its whole embedding back, as it was before the fit."""
        import torch

        del self.embedding.forward, self.embedding.row_of
        self.embedding.weight = torch.nn.Parameter(self.weight, requires_grad=True)


def narrow(model: Any, tokens: Iterable[int]) -> Table | None:
    """Cut the embedding of `model` to these tokens in place; None where it does not learn alone, or all of it is used."""
    import torch

    embedding: Any = _shapes.token_table(model)
    if not _plain(embedding) or not embedding.weight.requires_grad:
        return None
    names = [name for name, weight in model.named_parameters(remove_duplicate=False) if weight is embedding.weight]
    pad = embedding.padding_idx
    used = torch.tensor(sorted({*tokens} | ({pad} if pad is not None else set())))
    if len(names) > 1 or len(used) == embedding.num_embeddings:  # shared with the output, or nothing to leave out
        return None
    weight = embedding.weight.detach()
    row_of = torch.full((len(weight),), len(used))  # past the end: a token that was not announced is an error
    row_of[used] = torch.arange(len(used))
    pad_row = None if pad is None else int(row_of[pad])
    embedding.register_buffer("row_of", row_of, persistent=False)  # it goes where the model goes
    embedding.weight = torch.nn.Parameter(weight[used].clone())

    def forward(input_ids: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.embedding(embedding.row_of[input_ids], embedding.weight, pad_row)

    embedding.forward = forward
    return Table(names[0], embedding, weight, used)


def _plain(embedding: Any) -> bool:
    import torch

    return type(embedding) is torch.nn.Embedding and not embedding.max_norm
