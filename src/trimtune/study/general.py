"""General text, on which is seen what tuning cost a language model: the user's own, or the sample that comes with the package."""

from __future__ import annotations

import re
from itertools import islice
from pathlib import Path

from trimtune.errors import TrimtuneError
from trimtune.records import DataSpec
from trimtune.study import formats, turns
from trimtune.study.table import SAMPLE
from trimtune.study.tables import open_table
from trimtune.study.text_file import lines, shown

PLAIN = (".txt", ".md")
"""endings of files that are one text"""
BUILT_IN = Path(__file__).parent.parent / "data" / "_general" / "english.txt"
_MOST = 40_000
"""characters, some 10,000 tokens: enough to tell a loss of some percent, and seconds of a GPT-2 on two cores"""
_LONGEST = 1_000
"""characters of a piece"""
_PARAGRAPHS = re.compile(r"\n[ \t]*\n\s*")
_PIECES = re.compile(rf"\S.{{0,{_LONGEST - 1}}}(?=\s|$)|\S{{{_LONGEST}}}", re.DOTALL)


def read(path: Path | None) -> list[str]:
    """The text in pieces: its paragraphs, long ones cut between words; of a table one or more per row.

    Of more than 40,000 characters some pieces are taken, evenly spaced.

    Args:
        path: a text file, or a table of rows for a language model; None for the built-in sample.

    Raises:
        TrimtuneError: unreadable, or no words in it.
    """
    texts = _rows(path) if path and path.suffix.lower() not in PLAIN else [_text(path or BUILT_IN)]
    pieces = [piece.strip() for text in texts for paragraph in _PARAGRAPHS.split(text) for piece in _PIECES.findall(paragraph)]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise TrimtuneError(f"data.general: {shown(path or BUILT_IN)} holds no words.", "Allowed: a text in any language.",
                            "Give another file, or leave data.general out: a sample of English prose is then read.")
    return evenly(pieces, _MOST)


def evenly(pieces: list[str], most: int) -> list[str]:
    """As many pieces, evenly spaced, as hold `most` characters together; all, if they hold no more. One at least."""
    total = sum(map(len, pieces))
    count = min(len(pieces), max(1, len(pieces) * most // total))
    return [pieces[at * len(pieces) // count] for at in range(count)]


def _text(path: Path) -> str:
    return "".join(lines(path)).replace("\r\n", "\n")


def _rows(path: Path) -> list[str]:
    table = open_table(path)
    rows = list(islice(table.rows, SAMPLE))
    found = formats.choose(table.name, table.columns, [cells for _, _, cells in rows], DataSpec(train=str(path)))
    at = [table.columns.index(column) for column in found.columns]
    return ["\n".join(turn.content for turn in turns.of([cells[index] for index in at], found.columns, found.kind,
                                                        table.at(number, line)))
            for number, line, cells in [*rows, *table.rows]]
