"""The head of a GGUF file, read in one pass: the types that its tensors really have.

    magic, version, tensors, keys | per key: name, type, value | per tensor: name, dimensions, sizes, type, offset

The package `gguf` reads it too, and makes several arrays of every token on the way: seconds for a vocabulary of 50,000.

Source: ggml-org/ggml, docs/gguf.md.
"""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import BinaryIO

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""type of a plain value → its bytes"""
_STRING, _ARRAY = 8, 9


def types(path: Path) -> dict[str, int]:
    """How many tensors the file holds of each type, such as {"F32": 9, "Q4_K": 12}."""
    import gguf

    with path.open("rb") as file:
        _, _, tensors, keys = struct.unpack("<4sIQQ", file.read(24))
        for _ in range(keys):
            _skip(file, _STRING)
            _skip(file, _number(file, "<I"))
        found: Counter[str] = Counter()
        for _ in range(tensors):
            _skip(file, _STRING)
            file.seek(8 * _number(file, "<I"), 1)
            found[gguf.GGMLQuantizationType(_number(file, "<I")).name] += 1
            file.seek(8, 1)
    return dict(sorted(found.items()))


def _skip(file: BinaryIO, kind: int) -> None:
    """Go behind a value."""
    if kind == _STRING:
        file.seek(_number(file, "<Q"), 1)
    elif kind == _ARRAY:
        inner, count = _number(file, "<I"), _number(file, "<Q")
        if inner in _SIZES:
            file.seek(count * _SIZES[inner], 1)
        else:
            for _ in range(count):
                _skip(file, inner)
    else:
        file.seek(_SIZES[kind], 1)


def _number(file: BinaryIO, form: str) -> int:
    value: int = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return value
