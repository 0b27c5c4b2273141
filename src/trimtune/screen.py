"""What a user sees while a command works: a live bar, plain lines, or nothing. Always on standard error.

With a terminal: one live line (step, bar, time left) under the finished steps. Without one: a line per finished step, and
at most one line of progress per 10 s. Quiet: warnings alone.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from trimtune.process import Event, Watch

SECONDS_BETWEEN = 10.0


@contextlib.contextmanager
def watching(quiet: bool = False) -> Iterator[Watch]:
    """The watcher that fits where standard error goes."""
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield _Quiet(console)
    elif console.is_terminal and not console.is_dumb_terminal:
        with _bar(console) as progress:
            yield _Live(progress)
    else:
        yield _Plain(Console(stderr=True, highlight=False, soft_wrap=True))


class _Quiet:
    def __init__(self, console: Console) -> None:
        self.console = console

    def __call__(self, event: Event) -> None:
        if event["kind"] == "warning":
            self.console.print(Text(f"warning: {event['text']}", style="yellow"))


class _Plain(_Quiet):
    """Lines for a log file."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.started = self.said = time.monotonic()
        self.step = ""

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if event["kind"] in ("note", "stage", "resumed"):
            self._print(event["text"])
        elif event["kind"] == "step" and event["state"] == "start":
            self.step = f"{_named(event)}: "
        elif event["kind"] == "step":
            self.step = ""
            self._print(finished(event))
        elif event["kind"] == "progress" and time.monotonic() - self.said >= SECONDS_BETWEEN:
            self._print(f"   {self.step}{event['text']} {_share(event)}".rstrip())

    def _print(self, text: str) -> None:
        self.said = time.monotonic()
        minutes, seconds = divmod(int(self.said - self.started), 60)
        self.console.print(Text(f"[{minutes:02d}:{seconds:02d}] {text}"))


class _Live(_Quiet):
    """Finished steps scroll up; the line below says what goes on, and how long it will take."""

    def __init__(self, progress: Progress) -> None:
        super().__init__(progress.console)
        self.progress = progress
        self.task: TaskID | None = None
        self.step = ""

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        kind = event["kind"]
        if kind == "stage":
            self.console.print(Text(event["text"], style="bold"))
        elif kind in ("note", "resumed"):
            self.console.print(Text(event["text"], style="dim"))
        elif kind == "step" and event["state"] == "start":
            self.step = _named(event)
            self._new(self.step, None)
        elif kind == "step":
            self._drop()
            self.step = ""
            self.console.print(Text(finished(event), style={"failed": "red", "reused": "dim"}.get(event["state"], "")))
        elif kind == "progress":
            text = f"{self.step}: {event['text']}" if self.step else event["text"]
            self._advance(text, event.get("done") or 0, event.get("total"))

    def _advance(self, text: str, done: float, total: float | None) -> None:
        """Move the line on; work that begins anew, or is of another size, gets a new one, so that its time left is its own."""
        now = next((task for task in self.progress.tasks if task.id == self.task), None)
        if now is None or now.total != total or done < now.completed:
            self._new(text, total)
        assert self.task is not None
        self.progress.update(self.task, description=text, completed=done)

    def _new(self, text: str, total: float | None) -> None:
        self._drop()
        self.task = self.progress.add_task(text, total=total)

    def _drop(self) -> None:
        if self.task is not None:
            self.progress.remove_task(self.task)
        self.task = None


class _Times(ProgressColumn):
    """`0:07, 0:21 left`; without the second half as long as nobody knows."""

    def render(self, task: Task) -> Text:
        left = task.time_remaining
        elapsed = f"{timedelta(seconds=int(task.elapsed or 0))}".removeprefix("0:")
        return Text(elapsed if left is None else f"{elapsed}, " + f"{timedelta(seconds=int(left))}".removeprefix("0:") + " left")


def finished(event: Event) -> str:
    """One finished step as a line: `done    tune lora at learning rate 0.0012, seed 0: 12.3 s (process 0.4 s)`."""
    name = f"{event['state']:7} {_named(event)}"
    if event["state"] == "failed":
        return f"{name}: {event.get('cause', '')}"
    if event["state"] == "reused":
        return f"{name} ({event.get('seconds', 0.0):.1f} s spared)"
    start = event.get("start_seconds") or 0.0
    return f"{name}: {event.get('seconds', 0.0):.1f} s" + (f" (process {start:.1f} s)" if start >= 0.05 else "")


def _named(event: Event) -> str:
    about = event.get("about")
    return f"{event['step']} {event['part']}" + (f" {about}" if about else "")


def _share(event: Event) -> str:
    done, total = event.get("done"), event.get("total")
    return f"{done / total:.0%}" if total and done is not None else ""


def _bar(console: Console) -> Progress:
    return Progress(SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(bar_width=20), _Times(),
                    console=console, transient=True, refresh_per_second=5)


def results() -> Console:
    """Standard output, for results: plain text of any width when it is no terminal."""
    width = None if sys.stdout.isatty() else 160
    return Console(highlight=False, width=width)


def print_json(document: Any) -> None:
    """Exactly one JSON document on standard output."""
    import json

    print(json.dumps(document, indent=1, ensure_ascii=False, default=str))
