"""Data sets on the Hugging Face hub, read through `datasets`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from trimtune.errors import TrimtuneError
from trimtune.study.table import Table


def open_hub(name: str, split: str) -> Table | None:
    """One split of a data set on the hub, or None where it has no such split with labels.

    Args:
        name: `owner/name` or `owner/name:config`.

    Raises:
        TrimtuneError: it can't be fetched.
    """
    import datasets

    owner_name, _, config = name.partition(":")
    try:
        found = datasets.load_dataset(owner_name, config or None)
    except Exception as error:  # datasets lets through whatever its network and its parsers raise
        what = (str(error).splitlines() or [type(error).__name__])[0]
        raise TrimtuneError(f"'{name}' is no file here, and can't be fetched from the hub ({what[:200]}).",
                            "Allowed: a file, a hub id 'owner/name' or 'owner/name:config' within reach, or a bundled set.",
                            "Check the spelling and the network, or download the rows and give their file.") from error
    nicknames = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
    chosen = next((nick for nick in nicknames[split] if nick in found), None)
    if chosen is None:
        return None
    data = found[chosen]
    columns = tuple(data.column_names)
    names = {column: feature.names for column, feature in data.features.items() if isinstance(feature, datasets.ClassLabel)}
    if any(set(data.unique(column)) == {-1} for column in names):  # a benchmark's test split with its answers kept back
        return None

    def rows() -> Iterator[tuple[int, int, Sequence[Any]]]:
        for row, record in enumerate(data, 1):
            yield row, row, [_word(value, names.get(column)) for column, value in record.items()]

    return Table(f"{name} ({chosen})", columns, rows())


def _word(value: Any, names: list[str] | None) -> Any:
    """A class's index as its name; -1 stands for none."""
    if names is None or not isinstance(value, int):
        return value
    return names[value] if value >= 0 else None
