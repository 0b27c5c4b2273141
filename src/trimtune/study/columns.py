"""Which column holds the text and which the label: by name, else by looking at the cells."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from trimtune.errors import TrimtuneError

TEXT = ("text", "sentence", "utterance", "query", "question", "message", "body", "content", "review", "comment", "tweet", "post",
        "document", "description", "request", "input", "subject", "title", "prompt")
LABEL = ("label", "labels", "intent", "category", "class", "target", "sentiment", "topic", "tag", "y", "output", "queue",
         "rating", "stars", "emotion", "priority", "department", "type")
_LABEL_CHARACTERS = 60


def choose(name: str, columns: Sequence[str], sample: Sequence[Sequence[Any]], text: str | None,
           label: str | None) -> tuple[str, str, list[str]]:
    """The text column, the label column, and a note on each that was found by looking.

    Args:
        name: of the file, for messages.
        sample: the first rows' cells.
        text, label: what the study says, if it does.

    Raises:
        TrimtuneError: no such column, none that fits, or several that fit.
    """
    for given, key in ((text, "text"), (label, "label")):
        if given is not None and given not in columns:
            near = get_close_matches(given, columns, n=1)
            raise TrimtuneError(f"{name}: there is no column '{given}'.", f"Its columns: {', '.join(columns)}.",
                                f"Did you mean '{near[0]}'? " if near else f"Correct data.{key}.")
    if text is not None and text == label:
        raise TrimtuneError(f"{name}: the column '{text}' is given as text and as label.", f"Its columns: {', '.join(columns)}.",
                            "Give two different columns.")
    notes: list[str] = []
    found_label = label or _named([column for column in columns if column != text], LABEL)
    found_text = text or _named([column for column in columns if column != found_label], TEXT)
    if found_text is None:
        found_text = _longest(name, columns, sample, found_label)
        notes.append(f"text: column '{found_text}', found by looking (the longest, mostly distinct cells)")
    elif text is None:
        notes.append(f"text: column '{found_text}', found by its name")
    if found_label is None:
        found_label = _fewest(name, columns, sample, found_text)
        notes.append(f"label: column '{found_label}', found by looking (few distinct values)")
    elif label is None:
        notes.append(f"label: column '{found_label}', found by its name")
    return found_text, found_label, notes


def text_of(name: str, columns: Sequence[str], sample: Sequence[Sequence[Any]]) -> str:
    """The text column of rows without labels: the only one, the one with such a name, or the longest.

    Raises:
        TrimtuneError: none looks like text.
    """
    only = columns[0] if len(columns) == 1 else None
    return only or _named(columns, TEXT) or _longest(name, columns, sample, None)


def _named(columns: Sequence[str], names: Sequence[str]) -> str | None:
    words = {column: re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)).lower().split() for column in columns}
    for name in names:
        for column, parts in words.items():
            if parts == [name]:
                return column
    near = [column for column, parts in words.items() if set(parts) & set(names) and "id" not in parts]
    return near[0] if len(near) == 1 else None


def _values(sample: Sequence[Sequence[Any]], index: int) -> list[str]:
    return [str(cells[index]).strip() for cells in sample if cells[index] is not None and str(cells[index]).strip()]


def _longest(name: str, columns: Sequence[str], sample: Sequence[Sequence[Any]], label: str | None) -> str:
    lengths = {}
    for index, column in enumerate(columns):
        values = _values(sample, index)
        if column != label and values and 2 * len(set(values)) >= len(values) and not all(map(number, values)):
            lengths[column] = sum(map(len, values)) / len(values)
    if not lengths:
        raise TrimtuneError(f"{name}: no column looks like text.",
                            f"Its columns: {', '.join(columns)}. A text column has mostly distinct cells of words.",
                            "Say which it is: `data: {train: …, text: COLUMN, label: COLUMN}`. Is the header row missing?")
    return max(lengths, key=lengths.__getitem__)


def _fewest(name: str, columns: Sequence[str], sample: Sequence[Sequence[Any]], text: str) -> str:
    fitting, header = [], False
    for index, column in enumerate(columns):
        values = _values(sample, index)
        distinct = set(values)
        header |= column in distinct
        few = len(distinct) >= 2 and 2 * len(distinct) <= len(values) and len(distinct) <= max(10, len(values) // 4)
        if column != text and few and max(map(len, distinct)) <= _LABEL_CHARACTERS:
            fitting.append(column)
    allowed = f"Its columns: {', '.join(columns)}. Known names of label columns: {', '.join(LABEL[:8])}, …"
    if header:
        raise TrimtuneError(f"{name}: row 1 seems to be no header but a row ({', '.join(columns)}).", allowed,
                            "Add a header row such as text,label.")
    if len(fitting) != 1:
        what = f"several columns could be the label ({', '.join(fitting)})" if fitting else "no column looks like a label"
        raise TrimtuneError(f"{name}: {what}.", allowed, "Say which it is: `data: {train: …, text: COLUMN, label: COLUMN}`.")
    return fitting[0]


def number(value: str) -> bool:
    """Whether a cell is a number."""
    try:
        float(value)
    except ValueError:
        return False
    return True
