"""Every broken study, data file and command line that the tests know, given to the real command in a process of its own.

    python bench/bad_input.py

For each: exit status 2, no traceback, at least three lines of error, the words that it must name, and every file that was
there before still there and unchanged. Exit status 0 only if all hold.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.cli.test_bad_commands import BAD, contents
from tests.study.test_bad_data import FINE, OTHER, TRAIN
from tests.study.test_bad_studies import CASES

Case = tuple[str, dict[str, str | bytes], list[str], tuple[str, ...]]


def cases() -> Iterator[Case]:
    """Name, files to put there, command line, words that the error must hold."""
    for name, (content, named) in CASES.items():
        files: dict[str, str | bytes] = {"study.yaml": content, "train.csv": "text,label\na,x\n", "notes.txt": "a\n"}
        yield f"study: {name}", files, ["plan", "study.yaml"], named
    for name, (file, content, named) in TRAIN.items():
        yield f"data: {name}", {file: content}, ["tune", file, "-o", "out"], named
    for name, (content, named) in OTHER.items():
        files = {"fine.csv": FINE, "v.csv": content}
        yield f"validation: {name}", files, ["tune", "fine.csv", "--validation", "v.csv", "-o", "out"], named
    rows = "text,label\n" + "".join(f"row {index},{'ab'[index % 2]}\n" for index in range(40))
    for name, (words, word) in BAD.items():
        yield f"command: {name}", {"rows.csv": rows, "full/mine.txt": "mine"}, words, (word,)


def faults_of(case: Case) -> list[str]:
    _, files, words, named = case
    with tempfile.TemporaryDirectory() as scratch:
        for name, content in files.items():
            path = Path(scratch, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        before = contents(Path(scratch))
        done = subprocess.run([sys.executable, "-m", "trimtune", *words], cwd=scratch, capture_output=True, text=True,
                              check=False, stdin=subprocess.DEVNULL, env={**os.environ, "COLUMNS": "400", "NO_COLOR": "1"})
        after = contents(Path(scratch))
    flat = " ".join(done.stderr.split())
    found = [f"status {done.returncode}"] if done.returncode != 2 else []
    found += ["a traceback"] if "Traceback" in done.stderr else []
    found += [f"fewer than three lines: {done.stderr!r}"] if len(done.stderr.strip().splitlines()) < 3 else []
    found += [f"doesn't name {word!r}: {flat[:300]}" for word in named if " ".join(word.split()) not in flat]
    found += [f"changed or lost {name}" for name, content in before.items() if after.get(name) != content]
    return found


def main() -> None:
    wrong = total = 0
    for case in cases():
        total += 1
        found = faults_of(case)
        wrong += bool(found)
        for fault in found:
            print(f"{case[0]}: {fault}", flush=True)
    print(f"{total} broken inputs, {total - wrong} refused as they should be, {wrong} not")
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
