"""The `chat` command: a language model in the terminal."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

from rich.console import Console
from rich.text import Text

from trimtune.errors import StepFailed, TrimtuneError
from trimtune.ship.bundle import language_model
from trimtune.ship.generator import Generator
from trimtune.study.turns import ASSISTANT, Turn

_HELP = "/reset forgets what was said, /system TEXT sets the system's words, /quit or Ctrl-D ends; Ctrl-C stops an answer."
_SYSTEM = "system"


class _Talk:
    """What was said so far, and the commands."""

    def __init__(self, model: Generator, system: str, max_new: int, console: Console) -> None:
        self.model, self.max_new, self.console = model, max_new, console
        self.system, self.turns = system, list[Turn]()

    def line(self, text: str) -> bool:
        """Do what a line says; False if it ends the talk."""
        command, _, rest = text.strip().partition(" ")
        if command in ("/quit", "/exit"):
            return False
        if command == "/reset":
            self.turns.clear()
            self._note("Forgotten.")
        elif command == "/system":
            self.system = rest.strip()
            self.turns.clear()
            self._note("Set; what was said before is forgotten." if self.model.kind == "chat" else
                       "This model was tuned on rows without a system's words; they are left out.")
        elif command.startswith("/"):
            self._note(_HELP)
        elif command:
            self._answer(text)
        return True

    def _answer(self, text: str) -> None:
        asked = self.model.turn(text)
        chat = self.model.kind == "chat"
        first = [Turn(_SYSTEM, self.system)] * bool(chat and self.system)
        said = [*first, *self.turns * chat, asked]
        answer, stopped = "", False
        try:
            while not self.model.has_room(tuple(said)) and len(said) > len(first) + 1:
                del self.turns[:2]
                said = [*first, *self.turns, asked]
                self._note("The oldest question and its answer are forgotten: the model can hold no more.")
            for piece in self.model.stream(tuple(said), self.max_new):
                answer += piece
                print(piece, end="", flush=True)
        except KeyboardInterrupt:
            stopped = True
        except (TrimtuneError, StepFailed) as error:
            self._note(str(error))
            return
        print(flush=True)
        if stopped:
            self._note("Stopped.")
        if chat and answer.strip():
            self.turns += [asked, Turn(ASSISTANT, answer)]

    def _note(self, text: str) -> None:
        self.console.print(Text(text, style="dim"))


def chat(folder: Path, system: str, max_new: int) -> None:
    """Answer each line until the input ends. A pipe's lines are said in turn, commands too; only answers are printed to stdout.

    Args:
        folder: a bundle, or what a fit or an engine wrote.
    """
    from transformers.utils import logging

    warnings.simplefilter("ignore")  # the libraries' own are for developers
    logging.disable_progress_bar()
    console, live = Console(stderr=True), sys.stdin.isatty()
    talk = _Talk(language_model(folder), system, max_new, console)
    if live:
        kinds = {"chat": "a conversation", "pairs": "each line is a prompt by itself", "text": "each line is gone on with"}
        console.print(Text(f"{folder}: {kinds[talk.model.kind]}. {_HELP}", style="dim"))
    while True:
        try:
            if not talk.line(input("> " if live else "")):
                return
        except KeyboardInterrupt:
            console.print(Text("\n/quit or Ctrl-D ends.", style="dim"))
        except EOFError:
            return
