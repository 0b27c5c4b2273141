"""What the user should know about the rows: repeated texts, texts in two splits, labels that contradict each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations

from trimtune.study.splits import same

Labelled = tuple[Sequence[str], Sequence[str]]
"""texts and labels of a split"""


def notes(splits: Mapping[str, Labelled]) -> list[str]:
    """One line per finding, with counts; nothing is removed."""
    keys = {name: [same(text) for text in texts] for name, (texts, _) in splits.items()}
    sets = {name: set(found) for name, found in keys.items()}
    result = []
    for name, found in keys.items():
        if len(found) > len(sets[name]):
            repeats = len(found) - len(sets[name])
            result.append(f"{name}: {_many(repeats, 'row repeats', 'rows repeat')} the text of another (kept)")
    for one, other in combinations(splits, 2):
        shared = sum(key in sets[one] for key in keys[other])
        if shared:
            result.append(f"{shared} of {len(keys[other])} {other} rows stand in {one} too (kept): scores on them are too good")
    return result + _conflicts(splits, keys) + _classes(splits)


def _conflicts(splits: Mapping[str, Labelled], keys: Mapping[str, Sequence[str]]) -> list[str]:
    labels: dict[str, set[str]] = {}
    for name, found in keys.items():
        for key, label in zip(found, splits[name][1], strict=True):
            labels.setdefault(key, set()).add(label)
    bad = {key: names for key, names in labels.items() if len(names) > 1}
    if not bad:
        return []
    key, names = next(iter(bad.items()))
    return [f"{_many(len(bad), 'text')} {'has' if len(bad) == 1 else 'have'} more than one label (kept), such as '{key[:60]}': "
            + " and ".join(sorted(names))]


def _classes(splits: Mapping[str, Labelled]) -> list[str]:
    counts = {name: Counter(labels) for name, (_, labels) in splits.items()}
    train, result = counts["train"], []
    folded: dict[str, list[str]] = {}
    for label in sorted(train):
        folded.setdefault(label.casefold(), []).append(label)
    alike = [names for names in folded.values() if len(names) > 1]
    if alike:
        result.append(f"labels that differ only in case count as different: {' and '.join(alike[0])}")
    for name, found in counts.items():
        lacking = sorted(set(train) - set(found))
        if lacking:
            more = ", …" if len(lacking) > 5 else ""
            result.append(f"{name}: no row of {_many(len(lacking), 'class', 'classes')} ({', '.join(lacking[:5])}{more})")
    (most, most_rows), (least, least_rows) = train.most_common()[0], train.most_common()[-1]
    if most_rows >= 10 * least_rows:
        result.append(f"train: the classes are uneven, from {most_rows} rows of '{most}' to {least_rows} of '{least}'")
    return result


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count} {one if count == 1 else several or one + 's'}"
