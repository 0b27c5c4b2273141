"""prune_weights: sets single weights of the encoder's linear layers to zero, in stages, and mends the rest after each.

Use it with `sparse_int8` or `sparse` behind it when the size on disk counts; not for speed: no kernel of these engines skips a
zero, so products take what they took (measured in the report), and a plain folder with zeros in it is as big as before.
`prune_ffn` makes matrices smaller and so faster. The criteria differ most where much goes: in one fit of MiniLM to 12 intents,
80% zeros in 3 stages of one epoch each, taylor kept 85.0% of 85.6% accuracy, wanda 81.3%, magnitude 76.9%; without recovery
16.9%, 39.0% and 21.0%, so a criterion can't be judged before the fit.

    W ← W · M,  M[n, k] = 0 where the score S[n, k] is among the lowest, share s of all        W, M [N, K], x [B, T, K]
    magnitude  S = |W[n, k]|                                       ranked over all layers
    wanda      S = |W[n, k]| · ‖x[k]‖₂, x over all tokens          ranked within each row n
    taylor     S = Σ_batches (W[n, k] · ∂L/∂W[n, k])²              ranked over all layers
    movement   S = S₀ − Σ_steps η · W[n, k] · ∂L/∂W[n, k]          ranked within each layer, S₀ = 10⁻³ |W[n, k]| / max |W|
    2:4        of each four neighbors W[n, 4i … 4i + 3] the two highest scores stay, whatever the criterion
    s_t = s · (1 − (1 − t / steps)³) after stage t of `steps`; a weight that is gone after a stage stays away

movement is learned: S is a parameter of the recovery fits, by the same optimizer, the gradient passes M straight through, and
within a stage weights may go and come back. It keeps what moves away from zero while the model learns, so it needs epochs.

Source: Han et al. 2015 (arXiv 1506.02626), section 3, for magnitude and fitting again; Sun et al. 2023 (arXiv 2306.11695),
section 3, for Wanda; Molchanov et al. 2019 (arXiv 1906.10771), section 3.1, for Taylor; Sanh et al. 2020 (arXiv 2005.07683),
section 4, for movement; Zhu & Gupta 2017 (arXiv 1710.01878), section 3, for the stages; Mishra et al. 2021 (arXiv 2104.08378),
section 3, for 2:4.
Only linear layers inside the blocks lose weights, not embeddings, norms, pooler and head. float32 in and out, a plain
transformers folder. LoRA is merged first; prefixes and prompts stay beside the weights. It comes after all trims that fit, whose
fits would move its zeros away. It refuses models without plain linear layers in their blocks, and 2:4 where a layer's inputs are
no multiple of 4.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from trimtune import parts
from trimtune.trim import _stages, _zeros
from trimtune.trim._gradual import share_after
from trimtune.trim._model_folder import base_of, load, write
from trimtune.tune.recovery import Setting, recover

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = True
NUMERICS: str | None = None
UNDONE_BY_FITS = True
"""a later trim's fit moves every weight, zeros too"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    criterion: Literal["magnitude", "wanda", "taylor", "movement"] = Field("taylor", description="what a weight's score is")
    sparsity: float = Field(0.8, gt=0, lt=1, description="share of the blocks' weights that become zero; with 2:4 it is 0.5")
    pattern: Literal["free", "2:4"] = Field("free", description="free, or two of each four neighbors in a row")
    steps: int = Field(3, ge=1, le=100, description="stages on the way to the sparsity, each with a recovery fit of its own")
    rows: int = Field(512, ge=1, description="training rows that wanda and taylor look at, drawn with the seed")
    epochs: int = Field(2, ge=0, le=100, description="passes of each recovery fit over the training rows; 0 leaves it out")
    learning_rate: float = Field(2e-4, gt=0, le=1, description="of the recovery fits, which train all that is not zero")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the recovery fits' loss that the parent's answers give")

    @model_validator(mode="before")
    @classmethod
    def _half_of_four(cls, given: Any) -> Any:
        return {"sparsity": 0.5, **given} if isinstance(given, dict) and given.get("pattern") == "2:4" else given

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.pattern == "2:4" and self.sparsity != 0.5:
            raise ValueError("pattern 2:4 is a sparsity of 0.5: leave sparsity out, or write pattern: free")
        if self.criterion == "movement" and not self.epochs:
            raise ValueError("criterion movement is learned in the recovery fits: leave epochs out, or take another criterion")
        return self


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the model folder with zeros in it.

    Returns:
        `weights` of the blocks' linear layers, `zeros` among them, `sparsity` (their share), `layers` (the lowest and the
        highest sparsity of a layer) and `stages`: the sparsity of each, and its `recovery` fit's facts.

    Raises:
        TrimtuneError: the architecture has no plain linear layers in its blocks, or none that 2:4 fits.
    """
    wanted, started = Config.model_validate(config), time.monotonic()
    begun = _stages.newest(folder)
    stages, task = [*begun.facts], parts.load("task", setting.task)
    teacher = task.load_model(source) if wanted.teacher and wanted.epochs else None
    for stage in range(len(stages), wanted.steps):
        module = load(source, task, attention="eager")
        if begun.state:
            module.load_state_dict(begun.state)
        layers = _zeros.layers(base_of(module), wanted.pattern)
        share, recovery = share_after(stage + 1, wanted.steps, wanted.sparsity), {}
        scores = _zeros.scores(module, layers, wanted.criterion, source, wanted.rows, setting)
        within = "2:4" if wanted.pattern == "2:4" else _zeros.WITHIN[wanted.criterion]
        if wanted.criterion == "movement":
            _zeros.learn(layers, scores, share, within)
        else:
            _zeros.hold(layers, _zeros.lowest(scores, share, within))
        if wanted.epochs:
            keep = _stages.checkpoints(folder, stage, begun, started)
            recovery = recover(module, source, setting, wanted.learning_rate, wanted.epochs, teacher=teacher,
                               share=wanted.teacher, keep=keep)
        _zeros.release(layers)
        stages.append({"sparsity": _zeros.counted(layers)["sparsity"], "recovery": recovery})
        if stage + 1 < wanted.steps:
            begun = _stages.finished(folder, begun, started, stages, module.state_dict())
    module.eval().requires_grad_(False)
    write(module, source, folder, task=task)
    return {**_zeros.counted(layers), "stages": stages}
