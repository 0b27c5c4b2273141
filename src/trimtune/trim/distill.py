"""distill: a student with fewer layers, cut out of its teacher (the model as it was), or a smaller pretrained model by name,
fitted to what the teacher answers.

Use it where latency counts most: with half its layers MiniLM took 0.58 of its time per row in PyTorch; int8 may follow. Not where
bytes count alone (embeddings stay: 70 of MiniLM's 91 MB did), nor where a point of accuracy is dear and prune_ffn is enough.

    L = (1 - a) · labels + a · answers + b · states + c · attention    a: `teacher`, b: `states`, c; each a mean over rows
    answers = τ² · KL(softmax(z_t / τ) ‖ softmax(z / τ)), τ = 2    states = 1/M Σ_m Σ_t |h_m - g_m|² / Σ_t |g_m|²
    attention = 1/(H T) Σ_h Σ_t KL(teacher's ‖ student's softmax(q_t kᵀ / √d)) + the same of softmax(v_t vᵀ / √d)

z, z_t: logits [B, C] of student and teacher; h_m: what leaves the student's layer m, [B, T, D]; g_m: what leaves the teacher's
layer ⌊m · L / M⌋ (m = 1 … M), which layer m was copied from; q_t, k, v: a head's in the last layer, [T, d].

Source: Sanh et al. 2019, DistilBERT (arXiv 1910.01108), section 3, for layers copied from the teacher; Jiao et al. 2020, TinyBERT
(arXiv 1909.10351), section 3.1, for evenly spread layers and their states; Wang et al. 2020, MiniLM (arXiv 2002.10957),
section 3, for attention, and for the last layer as the one to learn from, so it always stays; Hinton et al. 2015
(arXiv 1503.02531), section 2, for answers.

Answers are computed once per row; for states the teacher runs beside the student in each step, which cost 1.4 to 1.8 times the
seconds and brought MiniLM no accuracy that 480 and 1,821 test rows could tell, so they are off unless asked for. So is attention,
for which the teacher is asked once per row: 86.0% of 480 test rows with it, 87.1% without (one seed). `unlabelled` texts and
changed `copies` of rows have no label: only the teacher's part of the loss counts for them. Texts are what helped most: MiniLM on
2,000 rows of SST-2 lost 2.4 points with three layers, and 0.5 when 4,920 sentences more were answered for it.

A `student` by name keeps its own tokenizer, vocabulary and layers; only answers pass from one to the other, so the two may be of
different families. Its head is drawn with the seed.

`config.num_hidden_layers` tells any loader: the folder is plain transformers. LoRA is merged first; a prompt stays beside the
student; of a prefix the keys and values of the layers that stay do. It refuses models without a list of equal layers
(ALBERT) and as many layers as there are with all their neurons, which would be no trim; `attention` where a model's own isn't the
plain one by transformers' attention functions (MPNet, Gemma 2; BERT, DistilBERT, RoBERTa, Llama and GPT-2 have it).
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.study import model, sources, unlabelled
from trimtune.study.document import Place
from trimtune.tasks import _base
from trimtune.trim import _importance, _more_texts, _student, prune_ffn
from trimtune.trim._model_folder import base_of, load, size, write
from trimtune.tune.recovery import Setting, recover

if TYPE_CHECKING:
    import torch

TASKS = ("text_classification", "causal_lm")
NEEDS_DATA = True
NUMERICS: str | None = None
AUTO: tuple[int, tuple[dict[str, Any], ...]] = (20, ({}, {"layers": 2}))
BUILDS_ON = ("prune_ffn",)
"""other trims whose code it runs"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int | None = Field(None, ge=1, description="layers that the student keeps, evenly spread, the last one among them; "
                                                       "null: half of them")
    ffn: float = Field(1.0, gt=0, le=1, description="share of each feed-forward block's neurons that it keeps, as by prune_ffn")
    student: str | None = Field(None, description="a smaller pretrained model of text classifiers to teach instead of one cut "
                                                  "out of the teacher: a folder or a hub id; not with layers, ffn, states or "
                                                  "attention")
    epochs: int = Field(4, ge=0, le=1000, description="passes over the training rows and what is added to them; 0: no fit")
    learning_rate: float = Field(3e-4, gt=0, le=1, description="of the fit, which trains every weight of the student")
    teacher: float = Field(0.5, ge=0, le=1, description="share of the loss that the teacher's answers give; the labels the rest")
    states: float = Field(0.0, ge=0, description="weight of the distance from the teacher's layer states, added to the loss; "
                                                 "above 0 the teacher runs in each step")
    attention: float = Field(0.0, ge=0, description="weight of the divergence from what the teacher's last attention looks at, "
                                                    "added to the loss")
    unlabelled: str | None = Field(None, description="a file of texts without labels to be taught on as well: CSV, TSV, JSON "
                                                     "Lines, Parquet, or .txt with one text per line")
    copies: int = Field(0, ge=0, le=100, description="changed copies of each training row to be taught on as well: words "
                                                     "dropped, masked or swapped")

    @field_validator("unlabelled")
    @classmethod
    def _is_there(cls, path: str | None, info: ValidationInfo) -> str | None:
        """Absolute, from the folder of the study."""
        given = info.context or {}
        where, endings = given.get("place", Place("distill")) / "unlabelled", unlabelled.ENDINGS
        return path and str(sources.file_of(path, given.get("folder", Path()), str(where),
                                            f"a file of texts ({', '.join(endings)})", endings))

    @field_validator("student")
    @classmethod
    def _is_named(cls, name: str | None, info: ValidationInfo) -> str | None:
        given = info.context or {}
        return name and model.named(name, given.get("folder", Path()), given.get("place", Place("distill")) / "student")

    @model_validator(mode="after")
    def _has_its_own_layers(self) -> Config:
        if self.student and (self.layers or self.ffn < 1 or self.states or self.attention):
            raise ValueError(f"student: {self.student} has its own layers, so layers, ffn, states and attention can't be given "
                             "with it: remove them, or student")
        return self

    @model_validator(mode="after")
    def _is_taught(self) -> Config:
        if (self.unlabelled or self.copies) and not (self.teacher or self.states or self.attention):
            raise ValueError("unlabelled texts and copies have no label, so teacher, states or attention must be above 0")
        return self


def files(config: dict[str, Any]) -> list[Path]:
    """What it reads beside the model and the rows."""
    texts = [Path(config["unlabelled"])] if config["unlabelled"] else []
    return texts + (_base.files_of(model.locate(config["student"])) if config["student"] else [])


def refuse(config: dict[str, Any], task: str) -> None:
    """Before anything is tuned: a student by name, or more texts, are for tasks whose rows are labelled texts.

    Raises:
        TrimtuneError: the task is another.
    """
    wanted = Config.model_validate(config)
    if task != "text_classification" and wanted.student:
        raise TrimtuneError(f"distill: student: {wanted.student} was given for the task {task}.",
                            "A student by name learns answers over labels: the next tokens of two tokenizers can't be compared.",
                            "Leave it out: the student is then cut out of its teacher.")
    if task != "text_classification" and (wanted.unlabelled or wanted.copies):
        given = f"unlabelled: {wanted.unlabelled}" if wanted.unlabelled else f"copies: {wanted.copies}"
        raise TrimtuneError(f"distill: {given} was given for the task {task}.",
                            "Texts without labels are for classifiers; rows of a language model teach without one.",
                            "Leave it out, and put more texts among the training rows.")


def run(folder: Path, source: Path, config: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """Write the student's model folder.

    Returns:
        `kept` (the teacher's layers, from 0), `layers_before`, `layers`, `width` of the feed-forward blocks where they were cut,
        or `student`, its name; `parameters_before`, `parameters`, `texts` (counts of labelled, unlabelled and copied) and the
        `recovery` fit's facts.

    Raises:
        TrimtuneError: the architecture has no list of layers, or fewer than asked for; a file of texts or a student by name can't
            be used.
    """
    wanted, task = Config.model_validate(config), parts.load("task", setting.task)
    refuse(config, setting.task)
    teacher = task.load_model(source)
    if wanted.student:
        with TemporaryDirectory() as scratch:
            student = _by_name(Path(scratch), wanted.student, task, setting)
            return {"student": wanted.student, "parameters_before": size(teacher),
                    **_taught(folder, student, Path(scratch), wanted, setting, teacher, asks=source)}
    student = load(source, task, attention="eager")
    before, count = size(student), len(_student.layers(student))
    kept = _student.spread(count, wanted.layers or -(-count // 2))
    if len(kept) == count and wanted.ffn == 1:
        raise TrimtuneError(f"distill: layers: {wanted.layers} was given, and all neurons stay.",
                            f"The model has {count} layers: allowed are 1 to {count - 1}, or {count} with ffn below 1.",
                            "Ask for fewer, or leave distill out.")
    facts = _narrow(student, source, wanted.ffn, setting) if wanted.ffn < 1 else {}
    _student.keep(student, kept, task.AUTO_CLASS)
    return {"kept": kept, "layers_before": count, "layers": len(kept), **facts, "parameters_before": before,
            **_taught(folder, student, source, wanted, setting, teacher, stands_for=kept)}


def _by_name(scratch: Path, name: str, task: ModuleType, setting: Setting) -> torch.nn.Module:
    """A pretrained model with a head for these labels; its folder is `scratch`."""
    from trimtune.tune import fitting

    rows = task.rows.load(setting.rows)
    _base.copy(scratch, source=model.locate(name), task=setting.task, labels=rows.facts.labels, name=name)
    fitting.set_seed(setting.seed)
    student = load(scratch, task, attention="eager")
    fitting.refuse_long(base_of(student), setting.max_length,
                        lambda: fitting.longest(task, scratch, rows, setting.max_length, None))
    return student


def _taught(folder: Path, student: torch.nn.Module, source: Path, wanted: Config, setting: Setting, teacher: torch.nn.Module,
            **passed: Any) -> dict[str, Any]:
    """Fit the student, whose tokenizer lies in `source`, and write it."""
    task = parts.load("task", setting.task)
    rows = task.rows.load(setting.rows)
    more = _more_texts.fresh(Path(wanted.unlabelled), rows) if wanted.unlabelled else []
    mask = task.load_tokenizer(source).mask_token
    copied = _more_texts.copies(rows.train.texts, wanted.copies, mask, setting.seed) if wanted.copies else []
    recovery = {}
    if wanted.epochs:
        recovery = recover(student, source, setting, wanted.learning_rate, wanted.epochs, folder=folder, teacher=teacher,
                           share=wanted.teacher, states=wanted.states, attention=wanted.attention, extra=[*more, *copied],
                           **passed)
    write(student, source, folder, task=task)
    return {"parameters": size(student), "recovery": recovery,
            "texts": {"labelled": len(rows.train), "unlabelled": len(more), "copies": len(copied)}}


def _narrow(module: torch.nn.Module, source: Path, share: float, setting: Setting) -> dict[str, Any]:
    """Cut every feed-forward block to `share` of its neurons, those that count most in the whole model, in place."""
    base = base_of(module)
    blocks = prune_ffn.feed_forward_blocks(base)
    scores = _importance.importances(module, [down for _, down in blocks], source, prune_ffn.Config().rows, setting)
    width, importance = prune_ffn.remove(base, blocks, scores, 1 - share)
    return {"width_before": len(scores[0]), "width": width, "importance_kept": round(importance, 4)}
