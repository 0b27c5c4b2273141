"""mixed: each linear layer in few bits or in more, and as few as possible in more, so that a limit on lost quality holds.

Use it where uniform int4 (or ternary, binary without their fits) loses too much and int8 is too large: it takes minutes, no fit.
Not where int4 in every block holds the limit, which it then says, nor for speed with ternary and binary, which are only stored.
With few validation rows a fine limit is an estimate. MiniLM on the help desk set, limit 0.5: int4 in every block is enough
(19.0 MB); with ternary 32 of 36 layers must stay in int8, which saves next to nothing (22.6 MB, all in int8 23.1), so start with
int4.

    damage(l) = 1/N Σ_i KL(p_i ‖ p_i with layer l alone in `low`)      p_i: the parent's probabilities of row i, [C]; of a
                                                                       language model of learned token i, [V]
    order: damage(l) / (bytes of l in `high` − bytes in `low`), the highest first;  the first k stay in `high`, the rest in `low`
    lost(k) = 1/N Σ_i (p_i[s_i] − p_i[t_i])        s_i, t_i: the answers before and after;  k: the fewest with lost(k) ≤ `limit`
    of a language model  lost(k) = exp(1/N Σ_i (nll'_i − nll_i)) − 1     the share by which perplexity rises, over learned tokens

With a few hundred rows the accuracy lost by their labels is mostly luck, since rows that turn right cancel rows that turn wrong:
of 288 rows, 8 that changed make it uncertain by a point. So the limit is held against what the parent itself expects to lose by
the answers that changed, where each counts by how sure it was and nothing cancels. For that its probabilities are calibrated
first (one temperature, by the labels). The labels have a veto: the loss by them must not exceed the limit by more than chance
explains (one-sided 95%, from the rows that only one of the two has right). A language model's tokens are many, and their
likelihoods no coin: perplexity itself is held. k is found by halving.

Source: the order by KL is that of Cai et al. 2020, ZeroQ (arXiv 2001.00281), section 3, here per saved byte; keeping the most
sensitive layers until a limit holds is the partial quantization of Wu et al. 2020 (arXiv 2004.09602), section 5.1; one
temperature to calibrate by is that of Guo et al. 2017 (arXiv 1706.04599), section 4.2.
Only validation rows are read. What is judged is what runs: weights [N, K] on their grids, embeddings in int8 (of a language model
the tokens' and the output layer, positions in float32), inputs of int8 layers rounded by token and those of int4 in bf16 (sums in
another order may still turn a row whose best two are nearly equal). That is torch_eager's way; onnx_runtime runs the same weights
of classifiers, int8 layers with inputs rounded by tensor and batch, int4 layers with inputs in float32, but neither ternary nor
binary. Language models in `mixed` run on torch_eager alone.
The pooler, and layers whose shape int4 does not take, are in `high`. The folder that it hands on holds float32 and is read by
plain transformers; its weights lie on their grids and config.json names each layer's format. If not even all layers in `high`
hold the limit, that is what it hands on, and says so. LoRA is merged first; prefixes and prompts stay beside the weights.
It comes last in a chain of trims. It refuses classifiers without plain linear layers (GPT-2; a language model of it is taken),
and a `low` that none of them can take.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.trim import _few_bits, _grids, _mixing
from trimtune.trim._judges import Lost, Risen, judge_of
from trimtune.trim._model_folder import base_of, load, write
from trimtune.tune.recovery import Setting

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = True
NUMERICS: str | None = "mixed"
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (90, ({},))
BUILDS_ON = ("binary", "ternary")


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    limit: float | None = Field(None, ge=0, le=100, description="what may be lost against the parent, as validation rows tell: "
                                                                "points of accuracy; of a language model percent by which its "
                                                                "perplexity may rise. null: 0.5 points, or 2 percent")
    low: Literal["int4", "ternary", "binary"] = Field("int4", description="format of as many layers as may be, without a fit")
    high: Literal["int8", "float"] = Field("int8", description="format of the layers that must keep more bits; float: float32")
    group: int | None = Field(None, ge=0, description="inputs of an output channel that share a scale in `low`: for int4 32, 64, "
                                                      "128 or 256. null: as in the trim of that name, 32 or 128")
    unit: Literal["layer", "block"] = Field("layer", description="what is in one format: each linear layer by itself, or each "
                                                                 "block of the model, which takes fewer passes")
    rows: int = Field(256, ge=1, description="validation rows at most, evenly spaced, that the damages are measured on; the "
                                             "limit is judged on all")

    @model_validator(mode="after")
    def _a_group_that_the_kernel_takes(self) -> Config:
        if self.low == "int4" and self.group is not None and self.group not in _grids.GROUPS4:
            raise ValueError(f"group must be one of {', '.join(map(str, _grids.GROUPS4))} for int4")
        return self


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the model folder with its weights on the grids that were chosen.

    Returns:
        `damage` of each unit in nats, in the order in which they keep more bits; `kept`, those that do, and `met`, whether the
        limit holds; `formats` of all layers, their `bits_per_weight` as stored; `lost` of what is handed on and `uniform`, lost
        with none kept; how many were kept in what was `judged`, the `limit`, and the `rows` and `damage_rows` behind
        the figures.

    Raises:
        TrimtuneError: the model has no plain linear layers in its blocks, or none that can be in `low`.
    """
    wanted, task = Config.model_validate(config), parts.load("task", setting.task)
    group = _mixing.GROUPS[wanted.low] if wanted.group is None else wanted.group
    # no engine runs a classifier whose layers are transposed, so those of a language model alone are put straight
    module = load(source, task) if hasattr(task, "split_off") else task.load_model(source)
    base = base_of(module)
    layers, units, tables = _few_bits.linears(base), _units(_few_bits.matrices(base, "mixed"), wanted, group), _tables(base)
    judge, damage = judge_of(module, source, wanted.rows, setting), {}
    limit = judge.limit if wanted.limit is None else wanted.limit
    for unit, names in units.items():
        with _mixing.laid_out(layers, dict.fromkeys(names, wanted.low), group):
            damage[unit] = judge.damage()
    order = _mixing.by_harm(damage, {unit: sum(_saved(layers[name], wanted, group) for name in names)
                                     for unit, names in units.items()})

    def formats(kept: Collection[str]) -> dict[str, str]:
        low = {name for unit, names in units.items() if unit not in kept for name in names}
        return {name: wanted.low if name in low else wanted.high for name in layers}

    judged: dict[int, Lost | Risen] = {}

    def holds(kept: int) -> bool:
        with _mixing.laid_out({**tables, **layers}, {**dict.fromkeys(tables, "int8"), **formats(order[:kept])}, group):
            judged[kept] = judge.loss()
        return judged[kept].within(limit)

    fewest = _mixing.fewest(holds, len(order))
    kept = len(order) if fewest is None else fewest
    chosen = formats(order[:kept])
    for name, kind in chosen.items():
        layers[name].weight.data = _mixing.on_grid(layers[name].weight.data, kind, group)
    setattr(base.config, _few_bits.GRID, {"group": group, "formats": chosen})
    write(module, source, folder, task=task)
    stored = sum(_mixing.stored_bytes(tuple(layers[name].weight.shape), kind, group) for name, kind in chosen.items())
    weights = sum(layer.weight.numel() for layer in layers.values())
    return {"damage": {unit: float(f"{damage[unit]:.3g}") for unit in order}, "kept": order[:kept], "met": fewest is not None,
            "formats": chosen, "bits_per_weight": round(8 * stored / weights, 3), "lost": _rounded(judged[kept]),
            "uniform": _rounded(judged[0]), "judged": sorted(judged), "limit": limit, "rows": judge.rows,
            "damage_rows": judge.damage_rows, **_caveat(wanted, kept, fewest is not None, judged[kept], limit)}


def _units(inside: Mapping[str, Any], wanted: Config, group: int) -> dict[str, list[str]]:
    """The names of the layers in each unit, those that can't be in `low` left out."""
    units: dict[str, list[str]] = {}
    for name, layer in inside.items():
        words = name.split(".")
        first = next(at for at, word in enumerate(words) if word.isdigit())
        if _mixing.takes(layer.weight, wanted.low, group):
            units.setdefault(name if wanted.unit == "layer" else ".".join(words[:first + 1]), []).append(name)
    if not units:
        raise TrimtuneError(f"mixed: none of the {len(inside)} linear layers can be {wanted.low} in groups of {group}.",
                            "int4 takes outputs in multiples of 16, and inputs in multiples of the group.",
                            "Give a smaller group, or low: ternary.")
    return units


def _tables(base: Any) -> dict[str, torch.nn.Module]:
    """What torch_eager holds in int8 whatever is chosen, by name: embeddings; of a language model that of tokens, and the output
    layer."""
    import torch

    names, output = {layer: name for name, layer in base.named_modules()}, base.get_output_embeddings()
    if output is not None:
        return {names[layer]: layer for layer in (base.get_input_embeddings(), output)}
    return {name: layer for layer, name in names.items() if isinstance(layer, torch.nn.Embedding)}


def _saved(layer: Any, wanted: Config, group: int) -> int:
    high, low = (_mixing.stored_bytes(tuple(layer.weight.shape), kind, group) for kind in (wanted.high, wanted.low))
    return high - low


def _rounded(lost: Lost | Risen) -> dict[str, float]:
    return {name: round(value, 4) for name, value in asdict(lost).items()}


def _caveat(wanted: Config, kept: int, met: bool, lost: Lost | Risen, limit: float) -> dict[str, str]:
    if not met:
        return {"caveat": f"not even all layers in {wanted.high} hold the limit ({lost.told(limit)})"}
    return {} if kept else {"caveat": f"{wanted.low} in every block is enough here ({lost.told(limit)})"}
