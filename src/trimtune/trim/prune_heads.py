"""prune_heads: removes the least important attention heads; the matrices really get smaller.

Use it after prune_ffn, when latency or size must fall further and training rows are at hand for the recovery fit; not for a
model that is hardly tuned (its importances say little). Alone it brings little: attention is a third of a BERT block's weights.

    I[i] = Σ_rows | Σ_t Σ_c h_i[t, c] · ∂L/∂h_i[t, c] |      h_i = softmax(Q_i K_iᵀ / √d) V_i of head i, [B, T, d]
    scope `layer`: keep the (1 − ratio) · H heads with the largest I[i] of each layer; then fit all weights again
    scope `model`: keep (1 − ratio) of all heads, by I[i] / ‖I of its layer‖₂, at least one in each layer; then the same

I is that of the default criterion `taylor`; `activation` takes √(Σ_rows Σ_c (1/T Σ_t |h_i|)²), `weight` the norm of the output
projection's columns. Scope `layer` is the default: it works with prefixes too, and no difference in accuracy between the two was
found after recovery. With `steps` the heads go in stages, each with its own importances and fit (`r (1 − (1 − t / steps)³)` after
stage t).

Source: Michel et al. 2019 (arXiv 1905.10650), section 4.1; the criterion is that of Molchanov et al. 2017 (arXiv 1611.06440),
section 2.2. Query, key and value [D, D] lose rows, the output projection [D, D] the same columns. Where G heads share a key and
value (grouped queries: Llama), h_i is the output of a group, [B, T, G d], and a group goes with its key and value, so the cache
of keys and values shrinks with it (Ainslie et al. 2023, arXiv 2305.13245, section 2.2, for the groups).
Llama-likes whose layers keep one count of heads stay plain transformers. No config of transformers can say the others: theirs is
marked and the folder is read by trimtune alone, `ship` writes bundles and graphs of engines, no `merged` and no GGUF.
float32 in and out. LoRA is merged first; prefixes lose the keys and values of removed heads, prompts stay as they are. It refuses
architectures whose attention isn't four plain linear layers or GPT-2's two (ModernBERT), that have one key and value in all, or
that would answer otherwise with fewer heads (DeBERTa), which is tried; and scope `model` for a prefix, since PEFT keeps one with
the same number of heads for every layer.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.tasks import _shapes
from trimtune.trim import _importance, _virtual_tokens
from trimtune.trim._gradual import gradually
from trimtune.trim._model_folder import base_of, plain_state, size, write
from trimtune.tune.layers import kept_if_equal
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

    Block = tuple[tuple[str, ...], str]
    """names of a layer's query, key and value, or of the one layer that makes all three, and of its output projection"""

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = True
NUMERICS: str | None = None
NOT_AFTER = {"low_rank": "it leaves two thin layers for each, whose heads can't be cut"}
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (30, ({},))
_INPUTS = (("query", "key", "value"), ("query_proj", "key_proj", "value_proj"), ("q_lin", "k_lin", "v_lin"), ("q", "k", "v"),
           ("q_proj", "k_proj", "v_proj"), ("c_attn",))
_OUTPUTS = ("{0}.dense", "{0}.out_lin", "{0}.o", "{0}.o_proj", "{0}.c_proj", "{1}.output.dense")
"""what transformers calls them: {0} holds query, key and value, {1} holds {0}"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    ratio: float = Field(0.5, gt=0, lt=1, description="share of the heads to remove; each layer keeps one")
    scope: Literal["layer", "model"] = Field("layer", description="the same count in every layer, or the least important of all")
    steps: int = Field(1, ge=1, le=100, description="stages on the way to the ratio, each with a recovery fit of its own")
    criterion: Literal["taylor", "activation", "weight"] = Field(
        "taylor", description="a head's importance: how the loss changes without it, how strong it is, how strongly it is read")
    rows: int = Field(512, ge=1, description="training rows that the importances are summed over, drawn with the seed")
    epochs: int = Field(2, ge=0, le=100, description="passes of the recovery fit over the training rows; 0 leaves it out")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="of the recovery fit, which trains every weight")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the recovery fit's loss that the parent's answers give")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the pruned and recovered model folder.

    Returns:
        `heads_before` and `heads` of each layer, `head_size`, `share_a_key` (heads that have one key and value together and go
        together), `parameters_before`, `parameters`, `importance_kept` (share of the summed importance that stays), the
        `recovery` fit's facts, and those of each of the `stages`.

    Raises:
        TrimtuneError: the architecture's heads can't be cut, or those of its prefix can't in this scope.
    """
    import torch
    from transformers import AutoConfig

    wanted = Config.model_validate(config)

    def cut(module: torch.nn.Module, ratio: float) -> dict[str, Any]:
        if wanted.scope == "model" and _virtual_tokens.prefix_of(module):
            raise TrimtuneError("prune_heads: scope `model` was asked for a model with a prefix.",
                                "PEFT keeps a prefix with the same number of heads for every layer.", "Use scope `layer`.")
        base, parameters = base_of(module), size(module)
        group, blocks = shared_by(base), attention_blocks(base)
        scores = _importance.importances(module, [out for _, out in blocks], source, wanted.rows, setting,
                                         channels=group * head_size(base), criterion=wanted.criterion)
        if 1 < group == AutoConfig.from_pretrained(source).num_attention_heads:
            raise TrimtuneError(f"prune_heads: in {type(base).__name__} all {group} heads of a layer share one key and value.",
                                "Heads go with the key and value that they share, and each layer keeps one group.",
                                "Leave prune_heads out of `trim`; prune_ffn and low_rank make such a model smaller.")
        kept = chosen(scores, ratio, wanted.scope)
        remove(module, blocks, kept)
        before, after = ([group * len(one) for one in some] for some in (scores, kept))
        return {"before": sum(before), "after": sum(after), "heads_before": before, "heads": after, "share_a_key": group,
                "head_size": head_size(base), "parameters_before": parameters,
                "importance_kept": round(_importance.share_kept(scores, kept), 4)}

    def like(module: torch.nn.Module, told: dict[str, Any]) -> None:
        remove(module, attention_blocks(base_of(module)),
               [torch.arange(count // told["share_a_key"]) for count in told["heads"]])

    module, facts = gradually(source, folder, setting, cut, like, ratio=wanted.ratio, steps=wanted.steps,
                              learning_rate=wanted.learning_rate, epochs=wanted.epochs, share=wanted.teacher)
    write(module, source, folder, task=parts.load("task", setting.task))
    first, last = facts["stages"][0], facts["stages"][-1]
    return {"heads_before": first["heads_before"], "parameters_before": first["parameters_before"], "parameters": size(module),
            **{name: last[name] for name in ("heads", "head_size", "share_a_key")}, **facts}


def reshapes(config: dict[str, Any], architecture: dict[str, Any]) -> bool:
    """Whether a model of this config.json then has shapes that it can't say: all but those that name their keys and values."""
    return config["scope"] == "model" or "num_key_value_heads" not in architecture


def head_size(base: Any) -> int:
    """Channels of a head, which stay as they are: the model's own code counts heads by them."""
    return int(getattr(base.config, "head_dim", None) or base.config.hidden_size // base.config.num_attention_heads)


def shared_by(base: Any) -> int:
    """Heads that share a key and value, neighbors: 1, or more where queries are grouped."""
    heads = base.config.num_attention_heads
    return int(heads // (getattr(base.config, "num_key_value_heads", None) or heads))


def attention_blocks(base: Any) -> list[Block]:
    """The linear layers of each attention, in the model's order.

    Raises:
        TrimtuneError: none under the names that transformers uses, or none of fitting widths.
    """
    import torch

    modules: dict[str, Any] = dict(base.named_modules())
    blocks: list[Block] = []
    for holder in modules:
        names = [tuple(f"{holder}.{part}" for part in parts_) for parts_ in _INPUTS]
        inputs = next((found for found in names if found[0] in modules), None)
        outputs = [pattern.format(holder, holder.rpartition(".")[0]) for pattern in _OUTPUTS]
        out = next((name for name in outputs if name in modules), None)
        if inputs and out and all(isinstance(modules.get(name), torch.nn.Linear) for name in (*inputs, out)):
            width, group = modules[out].in_features, shared_by(base)
            wanted = [3 * width] if len(inputs) == 1 else [width, width // group, width // group]
            if [modules[name].out_features for name in inputs] == wanted and width % (group * head_size(base)) == 0:
                blocks.append((inputs, out))
    if not blocks:
        raise TrimtuneError(f"prune_heads: {type(base).__name__} has no attention of four plain linear layers of fitting widths, "
                            "nor GPT-2's of two.",
                            "Allowed: BERT-like encoders (BERT, DistilBERT, RoBERTa, ELECTRA, ALBERT …), Llama-like and "
                            "GPT-2-like decoders.", "Leave prune_heads out of `trim`, or use a model such as `minilm`.")
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
    """Cut every attention to these heads (where some share a key and value, to these groups), in place; the config says so, or is
    marked.

    The reference is the model whose output projections are zero at the other heads: it answers a few tokens first.

    Raises:
        TrimtuneError: the cut model fails there or answers otherwise, so its code counts heads in another way.
    """
    import torch

    base = base_of(module)
    channels, group = head_size(base), shared_by(base)
    units = [base.get_submodule(out).in_features // (group * channels) for _, out in blocks]
    for (_, out), heads, count in zip(blocks, kept, units, strict=True):
        last = base.get_submodule(out)
        stay = _places(heads, count, last.in_features)
        last.weight.data[:, torch.ones(last.in_features, dtype=torch.bool).index_fill(0, stay, False)] = 0

    def cut() -> None:
        for (inputs, out), heads, count in zip(blocks, kept, units, strict=True):
            for name in inputs:
                layer = base.get_submodule(name)
                _importance.keep_outputs(layer, _places(heads, count, layer.out_features, 3 // len(inputs)))
            last = base.get_submodule(out)
            _importance.keep_inputs(last, _places(heads, count, last.in_features))
        _shapes.count_channels(base)
        _virtual_tokens.keep_heads(module, kept)

    if not kept_if_equal(module, cut, lambda: None):
        raise TrimtuneError(f"prune_heads: {type(base).__name__} answers otherwise, or not at all, with fewer heads.",
                            "Allowed: architectures that find the number of heads from their size (BERT, DistilBERT, RoBERTa, "
                            "Llama …).", "Leave prune_heads out of `trim`, or use a model such as `minilm`.")
    _say(module, list(map(len, kept)), group, channels)


def _places(heads: torch.Tensor, count: int, width: int, parts_: int = 1) -> torch.Tensor:
    """The channels, of `width`, of these of `count` heads; queries, keys and values in one layer are three `parts_`."""
    import torch

    each = width // (parts_ * count)
    rows = torch.cat([heads + part * count for part in range(parts_)])
    return (rows[:, None] * each + torch.arange(each)).flatten()


def _say(module: Any, counts: Sequence[int], group: int, channels: int) -> None:
    """Say in the config how many heads are left, if plain transformers builds such a model then; else mark it."""
    base = base_of(module)
    told = {"num_attention_heads": group * counts[0], "num_key_value_heads": counts[0], "head_dim": channels}
    config = copy.deepcopy(base.config)
    if len(set(counts)) == 1 and hasattr(config, "num_key_value_heads") and not _shapes.marked(config):
        for name, value in told.items():
            setattr(config, name, value)
        if _shapes.built_alike(base, config, plain_state(module)):
            for name, value in told.items():
                setattr(base.config, name, value)
            return
    _shapes.mark(base.config)
