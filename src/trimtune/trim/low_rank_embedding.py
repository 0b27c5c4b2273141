"""low_rank_embedding: makes a narrow token embedding and a linear layer of the whole one, keeping what the rows' tokens need.

Use it when the size of a small encoder counts, whose embedding may be half of its parameters, and when it must go on cutting
words as before; not for speed: a product follows the looking up. What `prune_vocabulary` leaves can be factorised too.

    E [V, D] ≈ A B,  A [V, r], B [r, D];  r (V + D) parameters instead of V D;  e(t) = A[t] B, [B, T] → [B, T, D]
    w_t = (1 - u) n_t / Σ n + u / V       n_t: how often token t stands in the drawn training rows, u: `unseen`
    B: the r leading right singular vectors of diag(w)^½ E, as rows;  A = E Bᵀ;  Σ_t w_t |E[t] - A[t] B|² is then least

Source: Lan et al. 2020 (ALBERT, arXiv 1909.11942), section 3.1, factorised embedding parameters, there learned from the start;
SVD weighted by frequency: Chen et al. 2018 (GroupReduce, arXiv 1806.06950), equation 2, without their groups of tokens.

A token that no drawn row has weighs u / V: what stays of it is what it shares with the directions that the others take (the fact
`energy_unseen`). The recovery fit doesn't see it either: its row of A decays a little, while B, which all tokens share, moves.
Of a MiniLM tuned in full on helpdesk (one seed, 480 test rows, 89.2% and 90.9 MB) without a fit r = 128 left 88.1% and 59.8 MB,
r = 64 85.2% and 51.9 MB; plain SVD (`unseen: 1`) 76.0% and 60.4%. In int8 on torch_eager, 88.5% and 23.1 MB for the whole one:
87.9% and 15.3 MB, 85.6% and 13.3 MB.

ids are [B, T]; float32 in and out. The config is marked: plain transformers can't read the folder; engines build the
shapes that it holds, and store both halves like any embedding and linear layer. LoRA is merged first; prefixes and prompts stay
beside the weights. Any trim may stand before or after it, though `prune_vocabulary` first leaves it less to look at. It refuses
embeddings that are used in several places or do more than to look rows up (BART), one that is factorised already, and a rank
that saves nothing. Language models, whose output layer is often the same table, are not taken.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.tasks import _pretrained, _shapes
from trimtune.trim import _drawn, _thin
from trimtune.trim._model_folder import base_of, load, size, write
from trimtune.trim._recovered import recovered
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification",)
NEEDS_DATA = True
NUMERICS: str | None = None
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (60, ({},))
_ROWS_AT_ONCE = 8192
"""of the table, in float64: a vocabulary of 250,000 tokens would take gigabytes at once"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int | None = Field(None, ge=1, description="channels r of the narrow embedding; null: a third of its width, in eights")
    unseen: float = Field(0.1, gt=0, le=1, description="share of the weight that all tokens have alike, seen or not; the rest "
                                                       "goes by how often each is seen. 1: plain SVD")
    rows: int = Field(10_000, ge=1, description="training rows that tokens are counted in, drawn with the seed")
    epochs: int = Field(2, ge=0, le=100, description="passes of the recovery fit over the training rows; 0 leaves it out")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="of the recovery fit, which trains every weight")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the recovery fit's loss that the parent's answers give")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the model folder with the factorised and recovered embedding.

    Returns:
        `tokens`, `tokens_seen` (in the rows that were drawn), `width_before`, `width` (r), `energy_kept` (of the weighted table)
        and `energy_unseen` (of the rows of tokens that were not seen, all alike; null where all were), both before the
        `recovery` fit, whose facts follow, `parameters_before`, `parameters`.

    Raises:
        TrimtuneError: the embedding is no plain table of its own, or would not become smaller.
    """
    wanted, task = Config.model_validate(config), parts.load("task", setting.task)
    module = load(source, task)
    base, before = base_of(module), size(module)
    table = table_of(base)
    rank = _rank(table, wanted.rank)
    counts_V = counted(_drawn.inputs(source, setting, wanted.rows).ids, table.num_embeddings)
    table_VD, seen_V = table.weight.detach(), counts_V > 0
    weight_V = weights(counts_V, wanted.unseen)
    factorise(module, weight_V, rank)
    first_VR, wide_DR = (half.weight for half in base.get_input_embeddings())
    facts = {"tokens": table.num_embeddings, "tokens_seen": int(seen_V.sum()), "width_before": table.embedding_dim, "width": rank,
             "energy_kept": energy(table_VD, first_VR, wide_DR, weight_V),
             "energy_unseen": None if seen_V.all() else energy(table_VD, first_VR, wide_DR, (~seen_V).double())}
    recovery = recovered(module, source, folder, wanted, setting)
    write(module, source, folder, task=task)
    return {**facts, "parameters_before": before, "parameters": size(module), "recovery": recovery}


def reshapes(config: dict[str, Any], architecture: dict[str, Any]) -> bool:
    """Whether a model of this config.json then has shapes that it can't say: always, an embedding becomes two layers."""
    return True


def table_of(base: Any) -> torch.nn.Embedding:
    """The token embedding of a transformers model.

    Raises:
        TrimtuneError: it is factorised already, is more than a table, or is used in several places.
    """
    import torch

    found = base.get_input_embeddings()
    places = [name for name, module in base.named_modules(remove_duplicate=False) if module is found]
    why = ("is factorised already" if _shapes.token_table(base) is not found else
           "does more than to look rows up" if type(found) is not torch.nn.Embedding or found.max_norm else
           f"is used in {len(places)} places" if len(places) > 1 else "")
    if why:
        raise TrimtuneError(f"low_rank_embedding: the token embedding of this {type(base).__name__} {why}.",
                            "Allowed: one torch.nn.Embedding at the entrance, once (BERT, DistilBERT, RoBERTa, ELECTRA …).",
                            "Leave low_rank_embedding out of `trim`, or use a model such as `minilm`.")
    return found


def counted(rows: list[list[int]], tokens: int) -> torch.Tensor:
    """How often each token id stands in rows of ids, int64 [V]."""
    import torch

    return torch.bincount(torch.tensor([index for ids in rows for index in ids], dtype=torch.int64), minlength=tokens)


def weights(counts_V: torch.Tensor, unseen: float) -> torch.Tensor:
    """w of each token, float64 [V], which sum to 1."""
    return (1 - unseen) * counts_V.double() / counts_V.sum() + unseen / len(counts_V)


def factors(table_VD: torch.Tensor, weight_V: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A [V, r] and B [r, D], float32, of the least weighted squared error; B Bᵀ = I.

    The right singular vectors of diag(w)^½ E are the eigenvectors of Eᵀ diag(w) E [D, D], which no table is too long for.
    """
    import torch

    pieces = zip(table_VD.split(_ROWS_AT_ONCE), weight_V.split(_ROWS_AT_ONCE), strict=True)
    moment_DD = torch.stack([(some.double() * weight[:, None]).T @ some.double() for some, weight in pieces]).sum(0)
    second_RD = torch.linalg.eigh(moment_DD).eigenvectors.T[-rank:].flip(0).float().contiguous()
    return table_VD @ second_RD.T, second_RD


def energy(table_VD: torch.Tensor, first_VR: torch.Tensor, wide_DR: torch.Tensor, weight_V: torch.Tensor) -> float:
    """The weighted share of the table's squares that the product keeps: 1 − Σ w |E − A B|² / Σ w |E|²."""
    lost = whole = 0.0
    for some, first, weight in zip(*(one.split(_ROWS_AT_ONCE) for one in (table_VD, first_VR, weight_V)), strict=True):
        lost += float((weight * (some - first @ wide_DR.T).double().square().sum(1)).sum())
        whole += float((weight * some.double().square().sum(1)).sum())
    return round(1 - lost / max(whole, 1e-300), 4)


def factorise(module: torch.nn.Module, weight_V: torch.Tensor, rank: int) -> None:
    """Put a narrow embedding and a linear layer in the place of the token embedding, and mark the config."""
    from peft import PeftModel

    base = base_of(module)
    table = table_of(base)
    name = next(name for name, child in base.named_modules() if child is table)
    first_VR, second_RD = factors(table.weight.detach(), weight_V, rank)
    pair: Any = _shapes.factorised(table, rank, table.embedding_dim).requires_grad_(False)
    pair[0].weight.copy_(first_VR)
    pair[1].weight.copy_(second_RD.T)
    base.set_submodule(name, pair.eval())
    _shapes.mark(base.config)
    if isinstance(module, PeftModel):
        _pretrained.see_embedding(module)


def _rank(table: torch.nn.Embedding, given: int | None) -> int:
    """The rank that was asked for, or a third of the width.

    Raises:
        TrimtuneError: the two factors would not be smaller than the table.
    """
    tokens, width = table.num_embeddings, table.embedding_dim
    rank = given or max(_thin.MULTIPLE, width // 3 // _thin.MULTIPLE * _thin.MULTIPLE)
    highest = (tokens * width - 1) // (tokens + width)
    if rank > highest:
        raise TrimtuneError(f"low_rank_embedding: a rank of {rank} for {tokens:,} tokens and {width} channels saves nothing.",
                            f"Allowed: 1 to {highest}, so that r (V + D) < V D.",
                            "Give a lower rank, or leave low_rank_embedding out of `trim`.")
    return rank
