"""What a run finds out, as it crosses from one room of the package to another: rows, ledgers, the choice, the result.

Frozen like the rest of `records.py`; `result.json` in a run folder is one `Result`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trimtune.records import Candidate, Reading, Record, Study, Use


class Row(Record):
    """One candidate's line of the result: its readings, or the cause why there are none."""

    candidate: Candidate
    status: Literal["measured", "failed", "unavailable"]
    cause: str = ""
    readings: dict[str, Reading] = Field(default_factory=dict)
    packed: Literal["packed", "stored", "simulated", "plain"] = "plain"
    numerics: str = ""
    """the number format that its trims ask the engine for; `plain` if none does"""
    precision: str = ""
    """the number format that its engine computes in"""
    caveats: tuple[str, ...] = ()
    """what keeps it from being smaller or faster, as its trims and its engine say (`caveat` in their facts)"""
    threads: int = 0
    """that it was measured with, where fewer than all were tried; 0: all cores"""
    artifact: str = ""
    """key of the runnable artifact"""
    trimmed: str = ""
    """key of the artifact that the engine was made from"""

    @property
    def name(self) -> str:
        return self.candidate.name

    def value(self, reading: str) -> float | None:
        found = self.readings.get(reading)
        return found.value if found else None


class Trial(Record):
    """One point of a method's search. `curve` holds the validation accuracy after each epoch."""

    learning_rate: float
    score: float | None
    curve: tuple[float, ...] = ()
    pruned: bool = False
    seconds: float = 0.0
    cause: str = ""


class SeedFit(Record):
    seed: int
    validation_score: float
    test_score: float | None = None
    seconds: float = 0.0
    epochs: int = 0
    """that were run; fewer than asked if it stopped early"""
    seconds_to_99: float = 0.0
    """of training, until the end of the first epoch that scored 99% of the best one"""
    artifact: str = ""


class Search(Record):
    """The ledger of one method: what its budget was, what was done with it, and what came out."""

    method: Use
    trials_asked: int
    trials: tuple[Trial, ...]
    seeds_asked: int
    seeds: tuple[SeedFit, ...]
    learning_rate: float | None
    seconds: float
    precision: str = ""
    """the number format that its fits computed in"""
    peak_memory_mb: float = 0.0
    notes: tuple[str, ...] = ()
    cause: str = ""
    """why the method failed as a whole, if it did"""


class ChainTry(Record):
    """One chain of trims that was tried, on the validation rows."""

    trims: str
    score: float | None = None
    """higher is better: a share of rows right; of a language model nats per learned token"""
    size_mb: float | None = None
    ms: float | None = None
    """of what the search has `timed`, when nothing else took turns with it"""
    kept: bool = False
    words: str = ""
    """why it was left, if it was before its end"""


class ChainSearch(Record):
    """The ledger of `trim: auto` for one method on one engine; the first entry is the untrimmed model."""

    method: str
    engine: str
    tries: tuple[ChainTry, ...]
    timed: str = "one row"
    """what the times are of; of a language model `next token`"""


class Baseline(Record):
    """A rule that needs no tuning, scored on the same test rows; or the cause why it could not be."""

    name: str
    title: str
    """its name in words, `TF-IDF + logistic regression`"""
    readings: dict[str, Reading] = Field(default_factory=dict)
    predictions: tuple[int | tuple[float, int], ...] = ()
    """label index of every test row; of a language model (nll, tokens) of every prompt's rows"""
    by_answer: tuple[tuple[int, ...], ...] = ()
    """of what answers prompts, BLEU's statistics of each answer"""
    note: str = ""
    """what was chosen on the validation rows"""
    cause: str = ""


class Turns(Record):
    """A candidate's times, round by round, for comparing its speed with that of those who took turns with it."""

    ms: tuple[tuple[float, ...], ...]
    """of each round the time of each of its rows, the same rows for all candidates; or of each round one time"""
    bulk_ms: tuple[tuple[float, ...], ...] = ()
    """of each round the time of a row, when many are answered together"""
    session: str = ""
    """rounds of candidates in one session stood beside one another, those of others didn't"""
    drift: float = 1.0
    """of a session that was tied to an earlier one: how much longer a candidate of both took in it"""
    slowed: float = 1.0
    """how many times as long a call may have taken at worst, because of other processes that stayed busy"""


class Step(Record):
    """One line of the run's ledger of steps."""

    step: str
    part: str
    key: str
    seconds: float
    start_seconds: float
    peak_memory_mb: float
    reused: bool
    cause: str = ""


class Rejection(Record):
    candidate: str
    reason: str


class Verdict(Record):
    """What a candidate's trims brought, against the same method and engine with fewer of them."""

    candidate: str
    against: str
    """a candidate; empty where there is none to compare with"""
    kind: Literal["gain", "trade", "no gain here", "unsafe", "none"]
    """gain: smaller or faster, with quality tied or better. trade: smaller or faster for a loss of quality that is shown.
    unsafe: it can't be built or run, or is no better than a trivial rule. none: it can't be compared"""
    words: str
    """why: `3.9× smaller, 1.7× faster (1.6–1.8), accuracy tied (−0.2 points, −1.0 to 0.6)`"""

    def __str__(self) -> str:
        return f"{'no verdict' if self.kind == 'none' else self.kind}: {self.words}"


class Choice(Record):
    """What `choose` concludes. `picked` is None when nothing is inside the limits; `sentence` says it in words."""

    picked: str | None = None
    runner_up: str | None = None
    binding_limit: str | None = None
    rejected: tuple[Rejection, ...] = ()
    sentence: str = ""
    tied: tuple[str, ...] = ()
    """candidates whose quality cannot be told apart from the best one's"""
    unbeaten_baselines: tuple[str, ...] = ()
    """baselines that the picked candidate (or, with none picked, the most accurate one) does not beat"""
    smaller: tuple[Verdict, ...] = ()
    """of each of the smaller model's candidates against the pick (or, with none picked, the most accurate one)"""
    verdicts: tuple[Verdict, ...] = ()
    """of each candidate with trims: first against its parent, then against what lies further back in its chain"""

    def verdict(self, candidate: str) -> Verdict | None:
        """The one against the candidate's parent."""
        return next((verdict for verdict in self.verdicts if verdict.candidate == candidate), None)


class DataFacts(Record):
    """What was found in the user's rows, and what was done about it."""

    labels: tuple[str, ...]
    rows: dict[str, int]
    text: str
    label: str
    notes: tuple[str, ...] = ()
    sources: dict[str, str] = Field(default_factory=dict)
    kind: Literal["labels", "text", "pairs", "chat"] = "labels"
    """what a row is: a text with a label; for language models a text, a prompt and its completion, or a conversation"""


class Plan(Record):
    """What a run would do, before it does it."""

    study: Study
    data: DataFacts
    candidates: tuple[Candidate, ...]
    base: dict[str, Any]
    forecast: dict[str, dict[str, Any]]
    """method label, `model:method` of a smaller model → minutes of one fit, of the whole search at most, and peak memory"""
    unavailable: dict[str, str]
    """name of a candidate that can't run here → why"""


class Result(Record):
    """Everything a run found out; `result.json` in the run folder. Report, choose and ship read nothing else."""

    study: Study
    data: DataFacts
    machine: dict[str, Any]
    rows: tuple[Row, ...]
    searches: tuple[Search, ...]
    steps: tuple[Step, ...]
    choice: Choice = Choice()
    predictions: dict[str, tuple[int | tuple[float, int], ...]] = Field(default_factory=dict)
    """candidate name → predicted label index of every test row; of a language model (nll, tokens) of every prompt's rows"""
    by_answer: dict[str, tuple[tuple[int, ...], ...]] = Field(default_factory=dict)
    """candidate name → BLEU's statistics of each of a language model's answers"""
    by_round: dict[str, Turns] = Field(default_factory=dict)
    """candidate name → its times in each round"""
    examples: dict[str, tuple[dict[str, Any], ...]] = Field(default_factory=dict)
    """candidate name → a language model's first answers: prompt, reference, answer, ended"""
    baselines: tuple[Baseline, ...] = ()
    rivals: tuple[Row, ...] = ()
    """of the next smaller model, if the study names one; what is known of them by name stands among the candidates'"""
    chains: tuple[ChainSearch, ...] = ()
    truth: tuple[int, ...] = ()
    version: str = ""
    created: str = ""
    seconds: float = 0.0

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    @property
    def readings(self) -> Readings:
        """Every reading of every candidate."""
        return Readings({"candidate": row.name, **reading.model_dump()} for row in self.rows for reading in row.readings.values())


class Readings(tuple[dict[str, Any], ...]):
    """Readings as flat records: candidate, name, value, unit, better, n, low, high, interval, note."""

    def to_pandas(self) -> Any:
        """A pandas DataFrame with one line per reading."""
        import pandas

        return pandas.DataFrame(list(self))
