"""Text files as users have them: UTF-8 with or without a byte order mark, or an error that says which byte isn't."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from trimtune.errors import TrimtuneError

_MAGIC = {b"PK\x03\x04": ("a zip archive or an Excel workbook", "Export the sheet as 'CSV UTF-8' and give that file."),
          b"\xd0\xcf\x11\xe0": ("an old Excel workbook", "Export the sheet as 'CSV UTF-8' and give that file."),
          b"\x1f\x8b": ("a gzip archive", "Unpack it with gunzip and give the file inside."),
          b"PAR1": ("a Parquet file", "Rename it so that it ends in .parquet."),
          b"%PDF": ("a PDF", "Copy its rows into a CSV file."),
          b"\xff\xfe": ("UTF-16 text", "Save it as UTF-8 (in an editor: Save with encoding; in Excel: 'CSV UTF-8')."),
          b"\xfe\xff": ("UTF-16 text", "Save it as UTF-8 (in an editor: Save with encoding; in Excel: 'CSV UTF-8').")}


def shown(path: Path) -> str:
    """The path as messages name it: relative to the current folder where that is shorter to read."""
    whole = os.path.abspath(path)
    here = os.getcwd() + os.sep
    return whole.removeprefix(here) if whole.startswith(here) else whole


def lines(path: Path) -> Iterator[str]:
    """The lines of a text file with their line ends, one after another.

    Raises:
        TrimtuneError: unreadable, empty, binary, or not UTF-8; the message names the line and the byte.
    """
    _refuse_binary(path)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise TrimtuneError(f"{shown(path)}: line {number} holds a NUL character.", "A text file has none.",
                                        "Is it binary, or was it cut off? Export it again as UTF-8 text.")
                yield line
    except UnicodeDecodeError:
        raise _not_utf8(path) from None
    except OSError as error:
        raise _unreadable(path, error) from None


def _refuse_binary(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError as error:
        raise _unreadable(path, error) from None
    if not start.strip(b"\xef\xbb\xbf \t\r\n") and path.stat().st_size <= 4096:
        raise TrimtuneError(f"{shown(path)}: the file is empty.", "It must hold text.",
                            "Check that the export was finished, or give another file.")
    for magic, (what, do) in _MAGIC.items():
        if start.startswith(magic):
            raise TrimtuneError(f"{shown(path)}: this is {what}.", "Allowed here: text in UTF-8.", do)
    if b"\0" in start:
        line = start[: start.index(b"\0")].count(b"\n") + 1
        raise TrimtuneError(f"{shown(path)}: line {line} holds a NUL byte, so this is binary or UTF-16.",
                            "Allowed here: text in UTF-8.", "Export it again as UTF-8 text.")


def _not_utf8(path: Path) -> TrimtuneError:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                around = line[max(0, error.start - 12): error.start + 12].decode("cp1252", "replace").strip()
                return TrimtuneError(
                    f"{shown(path)}: row {number} is not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}.",
                    f"Allowed: UTF-8. Read as Windows-1252 the place would be '{around}'.",
                    f"Save it as UTF-8 (Excel: 'CSV UTF-8'), or: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > fixed{path.suffix}")
    return TrimtuneError(f"{shown(path)}: the end of the file is not UTF-8.", "Allowed: UTF-8.", "Save it again as UTF-8.")


def _unreadable(path: Path, error: OSError) -> TrimtuneError:
    if path.is_dir():
        return TrimtuneError(f"{shown(path)} is a folder.", "Allowed here: a file.", "Give the file inside it.")
    if not path.exists():
        return TrimtuneError(f"{shown(path)}: no such file.", "The path must lead to a file.",
                             "Check the spelling and the folder.")
    return TrimtuneError(f"{shown(path)} can't be read: {error.strerror}.", "It must be a file that you may read.",
                         "Check its permissions.")
