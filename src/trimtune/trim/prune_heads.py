"""prune_heads: removes the least important attention heads; the matrices really get smaller.

Use it after prune_ffn, when latency or size must fall further and training rows are at hand for the recovery fit; not for a
model that is hardly tuned (its importances say little). Alone it brings little: attention is a third of a BERT block's weights.

    I[i] = Σ_rows | Σ_t Σ_c h_i[t, c] · ∂L/∂h_i[t, c] |      h_i = softmax(Q_i K_iᵀ / √d) V_i of head i, [B, T, d]
    scope `layer`: keep the (1 − ratio) · H heads with the largest I[i] of each layer; then fit all weights again
    scope `model`: keep (1 − ratio) of all heads, by I[i] / ‖I of its layer‖₂, at least one in each layer; then the same

`layer` is the default: it works with prefixes too, and no difference in accuracy between the two was found after recovery. With
`steps` the heads go in stages, each with its own importances and fit (`r (1 − (1 − t / steps)³)` after stage t).

Source: Michel et al. 2019 (arXiv 1905.10650), section 4.1; the criterion is that of Molchanov et al. 2017 (arXiv 1611.06440),
section 2.2. Query, key and value [D, D] lose rows, the output projection [D, D] the same columns. No config of transformers can
say that, so config.json is marked and the folder is read by trimtune alone: `ship` writes bundles and graphs of engines, no
`merged`. float32 in and out. LoRA is merged first; prefixes lose the keys and values of removed heads, prompts
stay as they are. It refuses architectures whose attention isn't four plain linear layers (GPT-2, ModernBERT) or that would
answer otherwise with fewer heads (DeBERTa), which is tried; and scope `model` for a prefix, since PEFT keeps one with the same
number of heads for every layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune.errors import TrimtuneError
from trimtune.tasks import _shapes
from trimtune.trim import _importance
from trimtune.trim._gradual import gradually
from trimtune.trim._model_folder import base_of, size, write
from trimtune.tune.layers import kept_if_equal
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

    Block = tuple[tuple[str, str, str], str]
    """names of a layer's query, key and value, and of its output projection"""

TASKS = ("text_classification",)
NEEDS_DATA = True
NUMERICS: str | None = None
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (30, ({},))
_INPUTS = (("query", "key", "value"), ("query_proj", "key_proj", "value_proj"), ("q_lin", "k_lin", "v_lin"), ("q", "k", "v"))
_OUTPUTS = ("{0}.dense", "{0}.out_lin", "{0}.o", "{1}.output.dense")
"""what transformers' encoders call them: {0} holds query, key and value, {1} holds {0}"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(0.5, gt=0, lt=1, description="share of the heads to remove; each layer keeps one")
    scope: Literal["layer", "model"] = Field("layer", description="the same count in every layer, or the least important of all")
    steps: int = Field(1, ge=1, le=100, description="stages on the way to the ratio, each with a recovery fit of its own")
    rows: int = Field(512, ge=1, description="training rows that the importances are summed over, drawn with the seed")
    epochs: int = Field(2, ge=0, le=100, description="passes of the recovery fit over the training rows; 0 leaves it out")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="of the recovery fit, which trains every weight")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the recovery fit's loss that the parent's answers give")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the pruned and recovered model folder.

    Returns:
        `heads_before` and `heads` of each layer, `head_size`, `parameters_before`, `parameters`, `importance_kept` (share of
        the summed importance that stays), the `recovery` fit's facts, and those of each of the `stages`.

    Raises:
        TrimtuneError: the architecture's heads can't be cut, or those of its prefix can't in this scope.
    """
    import torch

    wanted = Config.model_validate(config)

    def cut(module: torch.nn.Module, ratio: float) -> dict[str, Any]:
        if wanted.scope == "model" and _prefix(module):
            raise TrimtuneError("prune_heads: scope `model` was asked for a model with a prefix.",
                                "PEFT keeps a prefix with the same number of heads for every layer.", "Use scope `layer`.")
        base, parameters = base_of(module), size(module)
        channels, blocks = head_size(base), attention_blocks(base)
        scores = _importance.importances(module, [out for _, out in blocks], source, wanted.rows, setting, channels=channels)
        kept = chosen(scores, ratio, wanted.scope)
        remove(module, blocks, kept)
        before, after = (list(map(len, some)) for some in (scores, kept))
        return {"before": sum(before), "after": sum(after), "heads_before": before, "heads": after, "head_size": channels,
                "parameters_before": parameters, "importance_kept": round(_importance.share_kept(scores, kept), 4)}

    def like(module: torch.nn.Module, told: dict[str, Any]) -> None:
        remove(module, attention_blocks(base_of(module)), [torch.arange(count) for count in told["heads"]])

    module, facts = gradually(source, folder, setting, cut, like, ratio=wanted.ratio, steps=wanted.steps,
                              learning_rate=wanted.learning_rate, epochs=wanted.epochs, share=wanted.teacher)
    write(module, source, folder)
    first, last = facts["stages"][0], facts["stages"][-1]
    return {"heads_before": first["heads_before"], "heads": last["heads"], "head_size": last["head_size"],
            "parameters_before": first["parameters_before"], "parameters": size(module), **facts}


def head_size(base: Any) -> int:
    """Channels of a head, which stay as they are: the model's own code counts heads by them."""
    return int(base.config.hidden_size // base.config.num_attention_heads)


def attention_blocks(base: Any) -> list[Block]:
    """The linear layers of each attention, in the model's order.

    Raises:
        TrimtuneError: none under the names that transformers' encoders use, or not all of one width.
    """
    import torch

    modules: dict[str, Any] = dict(base.named_modules())
    blocks: list[Block] = []
    for holder in modules:
        inputs = next(((f"{holder}.{q}", f"{holder}.{k}", f"{holder}.{v}") for q, k, v in _INPUTS if f"{holder}.{q}" in modules),
                      None)
        names = [pattern.format(holder, holder.rpartition(".")[0]) for pattern in _OUTPUTS]
        out = next((name for name in names if name in modules), None)
        if inputs and out and all(isinstance(modules.get(name), torch.nn.Linear) for name in (*inputs, out)):
            width = modules[out].in_features
            if all(modules[name].out_features == width for name in inputs) and width % head_size(base) == 0:
                blocks.append((inputs, out))
    if not blocks:
        raise TrimtuneError(f"prune_heads: {type(base).__name__} has no attention of four plain linear layers of one width.",
                            "Allowed: BERT-like encoders (BERT, DistilBERT, RoBERTa, ELECTRA, ALBERT …).",
                            "Leave prune_heads out of `trim`, or use a model such as `minilm`.")
    return blocks


def chosen(scores: Sequence[torch.Tensor], ratio: float, scope: str) -> list[torch.Tensor]:
    """The heads that stay, of each layer in ascending order."""
    import torch

    if scope == "layer":
        return [score.topk(max(1, round(len(score) * (1 - ratio)))).indices.sort().values for score in scores]
    ranks = [score / score.norm().clamp_min(1e-30) for score in scores]  # layers differ in scale, and not by what they matter
    for rank in ranks:
        rank[rank.argmax()] = torch.inf
    flat = torch.cat(ranks)
    stays = torch.zeros_like(flat, dtype=torch.bool)
    stays[flat.topk(max(len(ranks), round(len(flat) * (1 - ratio)))).indices] = True
    return [heads.nonzero().flatten() for heads in stays.split([len(rank) for rank in ranks])]


def remove(module: Any, blocks: Sequence[Block], kept: Sequence[torch.Tensor]) -> None:
    """Cut every attention to these heads, in place, and mark the config.

    The reference is the model whose output projections are zero at the other heads: it answers a few tokens first.

    Raises:
        TrimtuneError: the cut model fails there or answers otherwise, so its code counts heads in another way.
    """
    import torch

    base = base_of(module)
    channels = [(heads[:, None] * head_size(base) + torch.arange(head_size(base))).flatten() for heads in kept]
    for (_, out), stay in zip(blocks, channels, strict=True):
        last = base.get_submodule(out)
        gone = torch.ones(last.in_features, dtype=torch.bool).index_fill(0, stay, False)
        last.weight.data[:, gone] = 0

    def cut() -> None:
        for (inputs, out), stay in zip(blocks, channels, strict=True):
            for name in inputs:
                _importance.keep_outputs(base.get_submodule(name), stay)
            _importance.keep_inputs(base.get_submodule(out), stay)
        _cut_prefix(module, kept)

    if not kept_if_equal(module, cut, lambda: None):
        raise TrimtuneError(f"prune_heads: {type(base).__name__} answers otherwise, or not at all, with fewer heads.",
                            "Allowed: architectures that find the number of heads from their size (BERT, DistilBERT, RoBERTa …).",
                            "Leave prune_heads out of `trim`, or use a model such as `minilm`.")
    _shapes.mark(base.config)


def _prefix(module: Any) -> Any:
    """PEFT's settings of the model's prefix; None if it has none."""
    from peft import PeftModel, PrefixTuningConfig

    settings = module.active_peft_config if isinstance(module, PeftModel) else None
    return settings if isinstance(settings, PrefixTuningConfig) else None


def _cut_prefix(module: Any, kept: Sequence[torch.Tensor]) -> None:
    """A prefix holds a key and a value for each head of each layer, [P, layers · 2 · H · d]."""
    import torch

    settings = _prefix(module)
    if settings is None:
        return
    before, embedding = settings.num_attention_heads, module.prompt_encoder[module.active_adapter].embedding
    whole = embedding.weight.detach().unflatten(1, (len(kept), 2, before, -1))
    embedding.weight = torch.nn.Parameter(
        torch.stack([whole[:, layer, :, heads] for layer, heads in enumerate(kept)], dim=1).flatten(1), requires_grad=False)
    embedding.embedding_dim = embedding.weight.shape[1]
    settings.num_attention_heads = len(kept[0])
    settings.token_dim = settings.token_dim // before * len(kept[0])
