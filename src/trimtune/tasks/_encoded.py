"""The rows of a split as tokens, none longer than a model is given: what is longer is cut, shortened or left out, and told."""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtune.errors import TrimtuneError
from trimtune.study.language import Split
from trimtune.study.turns import Row
from trimtune.tasks._rendering import Rendering

_NAMED = 10
"""row numbers that a note lists"""


@dataclass(frozen=True)
class Encoded:
    """`ids[i]` are the tokens of a row, `learned[i]` marks those that the loss counts, `numbers[i]` is its row in the file.

    A text that was cut into pieces is several rows of one number.
    """

    ids: list[list[int]] = field(default_factory=list)
    learned: list[list[bool]] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)


def encoded(rendering: Rendering, split: Split, max_length: int, name: str) -> Encoded:
    """Every row of a split, none longer than `max_length` tokens.

    A text that is longer is cut into pieces, of which each but the last is full; a single token left over is dropped.
    A conversation that is longer loses its oldest questions and answers, whole; what is still longer is left out. `notes`
    counts both and names rows.

    Args:
        name: of the split, for messages.

    Raises:
        TrimtuneError: the template fails, drops a turn or gives an answer no end; nothing is learned from a row; no row
            is short enough.
    """
    found, longest = Encoded(), 0
    shortened: list[int] = []
    left_out: list[int] = []
    for row, number in zip(split.rows, split.numbers, strict=True):
        at = f"{name}: row {number}"
        ids, learned = rendering.tokens(row, at)
        whole, longest = len(ids) <= max_length, max(longest, len(ids))
        if not whole and rendering.kind == "text":
            pieces = [(ids[start:start + max_length], learned[start:start + max_length])
                      for start in range(0, len(ids) - 1, max_length)]  # a single token at the end foretells nothing
        else:
            kept = _shorter(rendering, row, at, max_length) if not whole else (ids, learned)
            pieces = [kept] if kept else []
        if not whole:
            (shortened if pieces else left_out).append(number)
        for piece, marks in pieces:
            found.ids.append(piece)
            found.learned.append([False, *marks[1:]])  # nothing stands before the first
            found.numbers.append(number)
    if not found.ids:
        raise TrimtuneError(f"{name}: none of {len(split)} rows fits into {max_length} tokens (fit.max_length).",
                            "A prompt with its answer is learned whole or not at all.",
                            f"Raise fit.max_length; the longest row has {longest} tokens.")
    if shortened:
        what = "were cut into pieces" if rendering.kind == "text" else "lost their oldest turns"
        found.notes.append(f"{name}: {_rows(shortened)} longer than {max_length} tokens {what}: {_listed(shortened)}")
    if left_out:
        found.notes.append(f"{name}: {_rows(left_out)} of {len(split)} longer than {max_length} tokens (fit.max_length) left "
                           f"out; the longest has {longest}: {_listed(left_out)}")
    return found


def _shorter(rendering: Rendering, row: Row, at: str, max_length: int) -> tuple[list[int], list[bool]] | None:
    system, rest = (row[:1], row[1:]) if row[0].role == "system" else ((), row)
    for start in range(2, len(rest), 2):
        ids, learned = rendering.tokens((*system, *rest[start:]), at)
        if len(ids) <= max_length:
            return ids, learned
    return None


def _rows(numbers: list[int]) -> str:
    return f"{len(numbers)} row{'' if len(numbers) == 1 else 's'}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:_NAMED])) + (", …" if len(numbers) > _NAMED else "")
