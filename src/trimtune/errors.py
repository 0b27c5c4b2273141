"""Errors that users meet: what was given, what is allowed, what to do."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TrimtuneError(Exception):
    """Bad input, or a state that the user can mend. The command line prints it and exits with status 2.

    Args:
        given: what was given, with its file, line, row or key.
        allowed: what would have been accepted, or why this was not.
        do: the next thing to do.
    """

    def __init__(self, given: str, allowed: str = "", do: str = "") -> None:
        self.given, self.allowed, self.do = given, allowed, do
        super().__init__("\n".join(line for line in (given, allowed, do) if line))


class StepFailed(Exception):
    """A step's process failed. `cause` is one line that a report can show; `detail` holds the traceback, if any."""

    def __init__(self, cause: str, detail: str = "") -> None:
        self.cause, self.detail = cause, detail
        super().__init__(cause)


class Unavailable(StepFailed):
    """What a step needs isn't there on this machine: nothing broke, and nothing was tried."""


def unknown(what: str, given: str, known: Iterable[str], where: str = "", do: str = "") -> TrimtuneError:
    """The error for a name that is not among the known ones, with the nearest one offered."""
    names = sorted(known)
    near = get_close_matches(given, names, n=1)
    hint = f"Did you mean '{near[0]}'? " if near else ""
    return TrimtuneError(f"{where + ': ' if where else ''}unknown {what} '{given}'.",
                         f"Known: {', '.join(names) or 'none'}.", (hint + do).strip())
