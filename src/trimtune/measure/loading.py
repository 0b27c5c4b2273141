"""Time until the first answer: of a process that starts, and of one that loads the candidate once more.

When to use: where processes come and go, as in a serverless function or a command line tool. Importing takes seconds for each
candidate, so it is read only where the study's `require` names one of the two, such as `load_ms: "<= 5000"`. Protocol: candidates
take turns, one turn each. A fresh interpreter starts; Python itself counts as there. From then on:

    load_ms        importing all libraries, loading tokenizer and engine, the first answer to one test row (of a language model
                   the logits of a prompt's first new token)
    load_again_ms  loading tokenizer and engine and answering again in the same process, with its libraries imported

The files are in the system's cache, since the candidate was loaded shortly before: emptying it would take root. So after a reboot
the time comes on top that the disk takes to read them. One time each, without an interval: read them as rough. Where a fresh
process fails to load the candidate, the note says why.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from trimtune.measure import _first_answer
from trimtune.measure._candidate import Subject
from trimtune.records import Quantity, Reading, Study

TASKS = ("causal_lm", "text_classification")
READINGS = {
    "load_ms": Quantity("ms", "lower", "Load time",
                        "From a Python process that has imported nothing to the first answer, the files in the system's cache."),
    "load_again_ms": Quantity("ms", "lower", "Load time, again", "The same once more in that process, its libraries imported.")}
ROUNDS = 1
_NOT_ASKED = "read only where the study's require names it"


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    fresh: bool = Field(False, description="start a process for it; without, nothing is read. True where a limit asks for it")
    at_most: float = Field(120.0, gt=0, description="seconds after which it is given up")


def settings(study: Study) -> dict[str, Any]:
    """What of the study decides the config."""
    return {"fresh": True} if any(limit.reading in READINGS for limit in study.require) else {}


def sample(subject: Subject, config: Config) -> dict[str, Any]:
    """Seconds: `first` and `again`. Or `lacking`: why there are none."""
    if not config.fresh:
        return {"lacking": _NOT_ASKED}
    return _first_answer.timed({"folder": subject.folder, **subject.opening}, subject.text(), config.at_most)


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """Both, in ms."""
    taken = samples[0]
    return {name: Reading(name=name, value=1e3 * taken[key] if key in taken else None, unit=unit, better=better,
                          n=int(key in taken), note=taken.get("lacking", ""))
            for key, (name, (unit, better, *_)) in zip(("first", "again"), READINGS.items(), strict=True)}
