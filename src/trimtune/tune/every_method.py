"""All methods that some candidates name, each searched once."""

from __future__ import annotations

from collections.abc import Sequence

from trimtune.records import Artifact, Candidate, Study
from trimtune.results import Search
from trimtune.store import Store
from trimtune.tune import search

Tuned = dict[str, tuple[Search, Artifact | None]]
"""method label → its ledger, and the fit that it chose; None where it failed"""


def tuned_of(candidates: Sequence[Candidate], study: Study, base: Artifact, rows: Artifact, store: Store) -> Tuned:
    """The fits that these candidates of one model are made of."""
    methods = {candidate.method.label: candidate.method for candidate in candidates}
    return {label: search.tune(method, study, base, rows, store) for label, method in methods.items()}
