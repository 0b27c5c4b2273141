"""From what the user asks to every chain that answers it."""

from __future__ import annotations

from fnmatch import fnmatchcase
from itertools import product

from trimtune.records import Candidate, Study


def expand(study: Study) -> list[Candidate]:
    """Every method × trim chain × engine, in the order in which the study names them, but for those that `skip` names."""
    return [candidate for candidate in every(study) if not skipped(candidate, study)]


def skipped(candidate: Candidate, study: Study) -> bool:
    """Whether a pattern of `skip` names it."""
    return any(fnmatchcase(candidate.name, pattern) for pattern in study.skip)


def every(study: Study) -> list[Candidate]:
    return [Candidate(method=method, trims=trims, engine=engine)
            for method, trims, engine in product(study.tune, study.trim, study.engine)]
