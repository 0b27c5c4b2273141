"""How a command ends: 0 done, 1 failed, 2 usage or bad input, 130 stopped by Ctrl-C. Never a traceback."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable
from typing import Any, cast

import typer

from trimtune.errors import StepFailed, TrimtuneError

UsageError = cast("type[Exception]", typer.BadParameter.__mro__[1])
"""click's; typer carries a click of its own in some versions"""

_KEPT = {
    "run": "Every finished step is kept, and a fit up to its last checkpoint; the same command goes on from there.",
    "tune": "Nothing was written; the same command goes on from the fit's last checkpoint, if there is one.",
    "ship": "No bundle was written; what was there before is as it was.",
    "predict": "The answers printed so far hold; a file given with -o was not written.",
}


def guarded(command: Callable[[], Any], words: list[str]) -> int:
    """Run the command line and return its exit status; whatever went wrong is said on standard error."""
    name = next((word for word in words if not word.startswith("-")), "")
    try:
        code = command()
        sys.stdout.flush()
        return _stopped(name) if code == 130 else code if isinstance(code, int) else 0
    except UsageError as error:
        return _usage(error, words)
    except TrimtuneError as error:
        return _say("\n".join(line for line in (error.given, error.allowed, error.do) if line), 2)
    except StepFailed as error:
        return _say(error.cause + _log_of(error.detail), 1)
    except (KeyboardInterrupt, typer.Abort):
        return _stopped(name)
    except BrokenPipeError:  # the reader of our output is gone, as in `trimtune parts | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _say(f"{error.filename or 'The file system'}: {error.strerror or error}.\n"
                    "trimtune must be able to read its input and to write to its output folders.\n"
                    "Check the path, its permissions and the free space; finished steps are kept.", 2)
    except MemoryError:
        return _say("The machine ran out of memory.\nFinished steps are kept.\nClose other programs, or lower fit.batch_size.", 1)
    except Exception as error:  # noqa: BLE001  the last resort: a user gets one line, we get the traceback
        return _say(f"Something went wrong inside trimtune: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
                    + _log_of(traceback.format_exc()) + "\nFinished steps are kept. Please report this with that file.", 1)


def _usage(error: Any, words: list[str]) -> int:
    """A wrong command line in three parts; `trimtune` alone prints its help."""
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.format_message())
        return 2
    context, parameter = getattr(error, "ctx", None), getattr(error, "param", None)
    path = context.command_path if context else "trimtune"
    allowed = " ".join(context.get_usage().split()).removeprefix("Usage: ") if context else "COMMAND"
    if context and getattr(context.command, "commands", None):
        allowed = ", ".join(context.command.commands)
    elif context and parameter is not None and (record := parameter.get_help_record(context)):
        allowed = "  ".join(record)
    given = shlex.join(words)[:200] or "trimtune"
    fault = " ".join(str(error.format_message()).split()).replace("Value error, ", "").rstrip(".")
    return _say(f"{given}: {fault}.\nAllowed: {allowed}\nSee `{path} --help`.", 2)


def _stopped(name: str) -> int:
    return _say("Stopped. " + _KEPT.get(name, "Nothing was changed."), 130)


def _log_of(detail: str) -> str:
    if not detail:
        return ""
    with tempfile.NamedTemporaryFile("w", prefix="trimtune-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(detail)
    return f"\nDetails: {file.name}"


def _say(text: str, code: int) -> int:
    for line in f"trimtune: {text}".splitlines():
        wide = shutil.get_terminal_size().columns if sys.stderr.isatty() else 0
        print(textwrap.fill(line, wide, break_long_words=False, break_on_hyphens=False) if wide else line, file=sys.stderr)
    return code
