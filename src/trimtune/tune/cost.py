"""What the fits behind a candidate took: readings from the ledger, not from the clock of this run."""

from __future__ import annotations

from collections.abc import Sequence

from trimtune.records import Artifact, Reading
from trimtune.store import Store


def cost(links: Sequence[Artifact], store: Store) -> dict[str, Reading]:
    """`fit_seconds` and `fit_peak_memory_mb` of a chain: its tuned artifact first, then each trim in order.

    The features that a head was trained on count in; the search does not, it has its own line in the report.
    """
    trims = "" if len(links) == 1 else f" and {len(links) - 1} trim{'s' if len(links) > 2 else ''} after it"
    note = f"the fit of the tuned weights{trims}; the search is told apart"
    found = {"fit_seconds": (sum(link.seconds for link in links) + features_seconds(links[0], store), "s"),
             "fit_peak_memory_mb": (max(link.peak_memory_mb for link in [*links, *features_of(links[0], store)]), "MB")}
    return {name: Reading(name=name, value=value, unit=unit, better="lower", n=1, note=note)
            for name, (value, unit) in found.items()}


def features_seconds(tuned: Artifact, store: Store) -> float:
    """Seconds of the features step that a fit was made from; 0 for a fit on tokens."""
    return sum(made.seconds for made in features_of(tuned, store))


def features_of(tuned: Artifact, store: Store) -> list[Artifact]:
    """The features step that a fit was made from, if it was."""
    parents = [store.seen(key) for key in tuned.parents]
    return [parent for parent in parents if parent and parent.step == "features"]
