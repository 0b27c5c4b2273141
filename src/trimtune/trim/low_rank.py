"""low_rank: makes two thin linear layers of each one in the encoder, keeping what matters to the inputs that it really sees.

Use it when size or the time of large matrix products counts and training rows are at hand for the recovery fit; not where
latency of single short rows counts alone (one product becomes two), nor for a third of the parameters and less: measure both.

    y = W x + b ≈ B (A x) + b,  A [r, K], B [N, r];  r (N + K) parameters instead of N K
    S Sᵀ = E[x xᵀ] + ε I (Cholesky),  U Σ Vᵀ = W S;  A = Σ_r^½ V_rᵀ S⁻¹,  B = U_r Σ_r^½
    mean |W x - B A x|² = Σ_{i > r} σ_i²: the energy that a rank costs, over the rows that were seen

Source: Wang et al. 2024 (SVD-LLM, arXiv 2403.07378), section 3, truncation-aware data whitening. `whiten: false` is the plain
truncated SVD of W, S = I: far worse before the recovery fit, so only for comparison.
x is [B, T, K]; float32 in and out, padding is not counted. Ranks are multiples of 8: by `ratio` the same share of every layer,
by `energy` the lowest that keep this share of the squared singular values in each. A layer that would save nothing stays
as it is; head, output layer and embeddings always do. The config is marked: plain transformers can't read the folder, nor can
gguf_llamacpp run it; every other engine here can. LoRA is merged first; prefixes and prompts stay beside the weights. Trims that
cut neurons or heads come before it. It refuses models without plain linear layers below the head, and settings under which no
layer becomes smaller.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.tasks import _shapes
from trimtune.trim import _seen, _thin
from trimtune.trim._model_folder import base_of, load, size, write
from trimtune.trim._recovered import recovered
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = True
NUMERICS: str | None = None
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (50, ({},))


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float | None = Field(0.5, gt=0, lt=1, description="share of each linear layer's parameters to keep")
    energy: float | None = Field(None, gt=0, lt=1, description="instead of ratio: share of each layer's squared singular values "
                                                               "to keep")
    whiten: bool = Field(True, description="keep what matters to the layers' inputs; false: plain SVD of the weights")
    rows: int = Field(512, ge=1, description="training rows that the inputs are seen on, drawn with the seed")
    epochs: int = Field(2, ge=0, le=100, description="passes of the recovery fit over the training rows; 0 leaves it out")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="of the recovery fit, which trains every weight")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the recovery fit's loss that the parent's answers give")

    @model_validator(mode="before")
    @classmethod
    def _energy_replaces_the_ratio_that_nobody_gave(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("energy") is not None and "ratio" not in given:
            return {**given, "ratio": None}
        return given

    @model_validator(mode="after")
    def _one_of_both(self) -> Config:
        if (self.ratio is None) == (self.energy is None):
            raise ValueError("give ratio or energy, one of the two")
        return self


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the thinned and recovered model folder.

    Returns:
        `layers` (those that were looked at), `ranks` (of those that became thin, by name), `parameters_before`, `parameters`,
        `energy_kept` (the mean over all layers) and the `recovery` fit's facts.

    Raises:
        TrimtuneError: the architecture has no plain linear layers, or nothing would become smaller.
    """
    wanted = Config.model_validate(config)
    task = parts.load("task", setting.task)
    module = load(source, task)
    before, layers = size(module), linear_layers(base_of(module))
    seen = _seen.inputs_of(module, layers, source, wanted.rows, setting) if wanted.whiten else {}
    ranks, kept = chosen(layers, seen, wanted.ratio, wanted.energy)
    thin(base_of(module), ranks, seen)
    recovery = recovered(module, source, folder, wanted, setting)
    write(module, source, folder, task=task)
    return {"layers": len(layers), "ranks": ranks, "parameters_before": before, "parameters": size(module),
            "energy_kept": round(kept, 4), "recovery": recovery}


def reshapes(config: dict[str, Any], architecture: dict[str, Any]) -> bool:
    """Whether a model of this config.json then has shapes that it can't say: always, two layers stand for one."""
    return True


def linear_layers(base: Any) -> dict[str, torch.nn.Linear]:
    """The linear layers below the head by name; those that are half of a factorised layer or embedding are left out.

    Raises:
        TrimtuneError: there is none.
    """
    import torch

    found = {f"{base.base_model_prefix}.{name}": layer for name, layer in base.base_model.named_modules()
             if type(layer) is torch.nn.Linear}
    found = {name: layer for name, layer in found.items() if not _is_pair(base.get_submodule(name.rpartition(".")[0]))}
    if not found:
        raise TrimtuneError(f"low_rank: {type(base).__name__} has no plain linear layers that are still whole.",
                            "Allowed: models of torch.nn.Linear (BERT, DistilBERT, RoBERTa, ELECTRA, LLaMA …), once.",
                            "Leave low_rank out of `trim`, or use a model such as `minilm`.")
    return found


def chosen(layers: dict[str, torch.nn.Linear], seen: dict[str, _seen.Seen], ratio: float | None,
           energy: float | None) -> tuple[dict[str, int], float]:
    """The rank of each layer that becomes thin, and the mean share of energy that all layers keep.

    Raises:
        TrimtuneError: no layer would become smaller.
    """
    shapes = [(layer.out_features, layer.in_features) for layer in layers.values()]
    values = [_thin.singular(layer.weight, seen[name].root_KK() if seen else None) for name, layer in layers.items()]
    ranks = _thin.ranks_by_ratio(shapes, ratio) if ratio else _thin.ranks_by_energy(values, shapes, energy or 1)
    if not any(ranks):
        given = f"ratio {ratio}" if ratio else f"energy {energy}"
        raise TrimtuneError(f"low_rank: with {given} none of the {len(layers)} linear layers would become smaller.",
                            "Two thin layers are smaller than one below rank N·K / (N + K), half of a square layer's.",
                            "Give a lower one, or leave low_rank out of `trim`.")
    kept = [float(one[:rank].square().sum() / one.square().sum().clamp_min(1e-300))
            for one, rank in zip(values, ranks, strict=True)]
    return {name: rank for name, rank in zip(layers, ranks, strict=True) if rank}, sum(kept) / len(kept)


def thin(base: Any, ranks: dict[str, int], seen: dict[str, _seen.Seen]) -> None:
    """Put two layers in the place of each named one, and mark the config."""
    import torch

    for name, rank in ranks.items():
        layer = base.get_submodule(name).requires_grad_(False)
        first_RK, second_NR = _thin.factors(layer.weight, rank, seen[name].root_KK() if seen else None)
        narrow = torch.nn.Linear(layer.in_features, rank, bias=False).requires_grad_(False)
        wide = torch.nn.Linear(rank, layer.out_features, bias=layer.bias is not None).requires_grad_(False)
        narrow.weight.copy_(first_RK)
        wide.weight.copy_(second_NR)
        if layer.bias is not None:
            wide.bias.copy_(layer.bias)
        base.set_submodule(name, torch.nn.Sequential(narrow, wide))
    _shapes.mark(base.config)


def _is_pair(module: torch.nn.Module) -> bool:
    """Two thin layers that stand for one, or a narrow embedding and the layer that widens it."""
    import torch

    kinds = [type(child) for child in module] if isinstance(module, torch.nn.Sequential) else []
    return kinds in ([torch.nn.Linear] * 2, [torch.nn.Embedding, torch.nn.Linear])
