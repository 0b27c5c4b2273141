"""The shared vocabulary: what a study asks, candidates, artifacts, readings. What a run finds with them is in `results.py`.

All are frozen and refuse unknown fields, so that a record read back from disk is the record that was written.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, ConfigDict, Field

Better = Literal["higher", "lower"]
Prefer = Literal["quality", "latency", "throughput", "size", "cost"]
PREFERRED: dict[Prefer, str] = {"latency": "latency_p50_ms", "throughput": "throughput_rows_per_s", "size": "size_mb",
                                "cost": "fit_seconds"}
"""what is preferred, other than quality → its reading"""


def preferable(readings: Iterable[str]) -> tuple[Prefer, ...]:
    """What may be preferred where these readings are taken."""
    known = {*readings}
    return tuple(prefer for prefer in get_args(Prefer) if prefer == "quality" or PREFERRED[prefer] in known)


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Use(Record):
    """One use of a part: its name and its config with every default filled in."""

    name: str
    config: dict[str, Any] = {}
    given: dict[str, Any] = {}
    """what the study set by itself; it tells two uses of one part apart"""

    @property
    def label(self) -> str:
        """`lora`, or `lora(r=16)` where the study changed something."""
        inner = ",".join(f"{key}={value}" for key, value in self.given.items())
        return f"{self.name}({inner})" if inner else self.name


class AnswerFormat(Record):
    """What an answer must look like: one of the two."""

    regex: str | None = Field(None, description="a regular expression that matches whole answers")
    json_schema: str | dict[str, Any] | None = Field(None, description="of answers in JSON: the schema, or a file that holds it")


class DataSpec(Record):
    """Where the rows are: a file, a hub id or the name of a bundled set per split; columns only if they can't be seen."""

    train: str
    validation: str | None = None
    test: str | None = None
    text: str | None = None
    label: str | None = None
    prompt: str | None = None
    completion: str | None = None
    messages: str | None = None
    """a column of conversations"""
    template: str | None = Field(None, description="a Jinja file that renders messages; else the tokenizer's chat template")
    loss: Literal["answers", "all"] = Field("answers", description="which tokens of a language model's rows are learned")
    format: AnswerFormat | None = Field(None, description="what answers must look like, for the reading format_valid")
    general: str | None = Field(None, description="a file of general text, on which forgetting is read; else English prose")


class Fit(Record):
    """What every fit of a study shares."""

    epochs: int = Field(4, ge=1, le=1000, description="passes over the training rows")
    batch_size: int = Field(32, ge=1, le=4096, description="rows per optimizer step")
    max_length: int = Field(128, ge=4, le=8192, description="tokens of a row at most; a longer one is cut, a pair left out")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: the fastest by a timed matrix product")
    patience: int = Field(3, ge=0, le=1000, description="a fit ends after so many epochs without a better validation score "
                                                        "(0: never); the best epoch's weights are kept in any case")
    class_weights: Literal["none", "balanced"] = Field("none", description="balanced: rare classes weigh more in the loss, as "
                                                                           "much as they are rarer")
    packing: Literal["auto", "on", "off"] = Field("auto", description="rows of a language model one behind another instead of "
                                                                       "padded. auto: where that saves a tenth of the positions; "
                                                                       "methods with virtual tokens (prefix, prompt, p_tuning) "
                                                                       "always pad")


class Budget(Record):
    """The same for every method, whatever it is."""

    trials: int = Field(6, ge=1, le=1000, description="learning rates tried per method")
    seeds: int = Field(3, ge=1, le=100, description="fits at the best learning rate, each with its own seed; its trial is one")
    minutes: float = Field(20.0, gt=0, description="cap for each method's search, in minutes of fitting")


class Auto(Record):
    """How many chains of trims `trim: auto` tries, for each method on each engine, and how many of them it measures."""

    tries: int = Field(10, ge=1, le=1000, description="chains that are tried, judged on the validation rows")
    keep: int = Field(3, ge=1, le=100, description="of these, candidates that are measured as those of `trim` are")


class Limit(Record):
    """One `require` line, such as latency_p50_ms <= 8, or accuracy >= parent - 0.01: against the same method without trims."""

    reading: str
    op: Literal["<=", ">=", "<", ">"]
    value: float
    """the bound; of a limit against the parent how much more than the parent's reading it is, negative for less"""
    parent: bool = False
    percent: bool = False
    """`value` is a percentage of the parent's reading"""
    surely: bool = False
    """the end of the paired difference's interval counts, not the difference itself"""

    def allows(self, value: float) -> bool:
        """Whether a reading is inside; of a limit against the parent, whether a difference to it is, in the unit of `value`."""
        return {"<=": value <= self.value, ">=": value >= self.value,
                "<": value < self.value, ">": value > self.value}[self.op]

    @property
    def margin(self) -> str:
        """` - 0.01`, ` + 2%`, or nothing, as it stands behind the parent."""
        much = f"{abs(self.value):g}{'%' if self.percent else ''}"
        return f" {'-' if self.value < 0 else '+'} {much}" if self.value else ""

    @property
    def bound(self) -> str:
        """`8`, or `parent - 0.01 surely`"""
        return f"parent{self.margin}{' surely' if self.surely else ''}" if self.parent else f"{self.value:g}"

    def __str__(self) -> str:
        return f"{self.reading} {self.op} {self.bound}"


class Study(Record):
    """What the user asks, fully resolved: every name known, every config checked, every default filled in."""

    name: str
    model: str
    smaller: str | None = None
    """the next smaller model off the shelf, tuned alike and measured beside the candidates"""
    task: str
    data: DataSpec
    tune: tuple[Use, ...]
    trim: tuple[tuple[Use, ...], ...]
    engine: tuple[Use, ...]
    auto: Auto | None = None
    """chains that are searched beside those of `trim`"""
    skip: tuple[str, ...] = ()
    """patterns of candidate names, such as `head+*@torch_eager`, that are not built"""
    fit: Fit = Fit()
    budget: Budget = Budget()
    require: tuple[Limit, ...] = ()
    prefer: Prefer = "quality"
    seed: int = 0


class Candidate(Record):
    """One fully resolved chain: method → trims in order → engine."""

    method: Use
    trims: tuple[Use, ...]
    engine: Use
    model: str = ""
    """where it isn't the study's own"""

    @property
    def method_label(self) -> str:
        """`lora`; `bert-mini:lora` of another model than the study's"""
        return (f"{Path(self.model).name}:" if self.model else "") + self.method.label

    @property
    def trims_label(self) -> str:
        return "+".join(trim.label for trim in self.trims) or "none"

    @property
    def name(self) -> str:
        """`lora+int8@onnx_runtime`; `bert-mini:lora@onnx_runtime` of another model than the study's"""
        return "+".join([self.method_label, *(trim.label for trim in self.trims)]) + "@" + self.engine.label


class Artifact(Record):
    """A folder in the store and what is known about it. Paths in `files` are relative to the folder."""

    key: str
    step: str
    part: str
    config: dict[str, Any] = {}
    parents: tuple[str, ...] = ()
    seed: int = 0
    files: dict[str, str] = {}
    """relative path → sha256"""
    facts: dict[str, Any] = {}
    """what the step found out: scores, sizes, counts; plain JSON"""
    seconds: float = 0.0
    start_seconds: float = 0.0
    """what the fresh process itself cost, before the step's work began"""
    peak_memory_mb: float = 0.0
    environment: dict[str, str] = {}
    folder: Path = Field(default=Path(), exclude=True)
    reused: bool = Field(default=False, exclude=True)


class Quantity(NamedTuple):
    """What a reading is of: its unit, which way is better, and what reports call it and say of it."""

    unit: str
    better: Better
    title: str
    meaning: str


class Reading(Record):
    """One measured quantity. `value` is None when the protocol refuses to give one; `note` then says why."""

    name: str
    value: float | None
    unit: str
    better: Better
    n: int
    low: float | None = None
    high: float | None = None
    interval: str = ""
    """how low and high were made, e.g. `Wilson 95%`"""
    note: str = ""
