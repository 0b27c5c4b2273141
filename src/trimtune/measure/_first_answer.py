"""The way from an interpreter that has imported nothing to a candidate's first answer, walked in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

_BEGIN = ("import sys, time; started = time.perf_counter(); import json; asked = json.load(sys.stdin); "
          "sys.path[:] = asked.pop('path'); from trimtune.measure._first_answer import main; main(started, **asked)")
"""what a bare interpreter is given"""


def timed(opening: dict[str, Any], text: str, at_most: float) -> dict[str, Any]:
    """Seconds until the `first` answer in a fresh interpreter, and for doing it `again` there. Or `lacking`: why it failed.

    Args:
        opening: `folder`, `engine`, `task`, `max_length`, `threads`, `reading` as for `open_subject`.
        at_most: seconds after which it is given up.
    """
    asked = json.dumps({**opening, "folder": str(opening["folder"]), "text": text, "path": sys.path})
    try:
        done = subprocess.run([sys.executable, "-c", _BEGIN], input=asked, capture_output=True, text=True, timeout=at_most,
                              check=False)
    except subprocess.TimeoutExpired:
        return {"lacking": f"no answer within {at_most:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return {"lacking": f"a fresh process can't load it: {last[:200]}"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main(started: float, text: str, **opening: Any) -> None:
    """In the fresh interpreter; `started` is its clock when it had imported nothing."""
    first = _answer(text, **opening)
    there = time.perf_counter()
    again = _answer(text, **opening)
    print("\n" + json.dumps({"first": there - started, "again": time.perf_counter() - there}))
    del first, again  # the first one is still held while the second is loaded, as in a server that loads another candidate


def _answer(text: str, folder: str, engine: str, task: str, max_length: int, threads: int, reading: dict[str, Any]) -> Any:
    """Load tokenizer and engine, and answer one text: a classifier's logits, or a language model's for the first token."""
    from trimtune import parts
    from trimtune.engines import _threads
    from trimtune.study import language

    part = parts.load("task", task)
    tokenizer = part.load_tokenizer(Path(folder))
    run = _threads.load(engine, Path(folder), threads)
    if part.rows is not language:
        return run, run(part.encode(tokenizer, [text], max_length, **reading))
    from trimtune.engines._decoding import padded

    tokens = tokenizer(text)["input_ids"][-max(1, min(max_length, run.context - 1)):]
    return run, run.begin(*padded([tokens], left=True))
