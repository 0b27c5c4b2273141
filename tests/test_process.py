from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trimtune.errors import StepFailed, TrimtuneError
from trimtune.process import Worker, cause_of, emit, threads


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    with Worker(tmp_path / "log") as worker:
        yield worker


def add(a: int, b: int = 0) -> int:
    return a + b


def fail(error: Exception) -> None:
    raise error


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def leave(status: int) -> None:
    os._exit(status)


def say(text: str) -> None:
    print(text)
    print(text, file=sys.stderr)


def report(n: int) -> str:
    for done in range(n):
        emit("progress", done=done + 1, total=n)
    return "ended"


def unpicklable() -> Any:
    return lambda: None


def eat_memory(allowed_mb: int) -> None:
    """More than the process may have: what a container's limit does to an allocation."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + allowed_mb * 2**20,) * 2)
    import numpy as np

    np.ones(allowed_mb * 2**20 * 4)


def giant_tensor() -> None:
    import torch

    torch.empty(2**50)


def torch_threads() -> int:
    import torch

    return torch.get_num_threads()


def grow(numbers: list[int], number: int) -> int:
    numbers.append(number)
    return sum(numbers)


def gone(pid: int, seconds: float = 20) -> bool:
    """Whether the process ends (or is a zombie that waits for a parent) within the time."""
    for _ in range(int(seconds * 20)):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.05)
    return False


def test_a_call_runs_elsewhere_and_its_cost_is_known(worker: Worker) -> None:
    assert worker.call(add, 2, b=3) == 5
    assert worker.call(os.getpid) != os.getpid()
    assert worker.start_seconds > 0
    assert worker.peak_memory_mb() > 10
    assert worker.call(torch_threads) == threads()


def test_two_workers_are_two_processes(worker: Worker) -> None:
    with Worker() as other:
        assert worker.call(os.getpid) == worker.call(os.getpid) != other.call(os.getpid)


def test_what_was_opened_stays_there(worker: Worker) -> None:
    worker.open(list, [1])
    assert worker.ask(grow, 2) == 3
    assert worker.ask(grow, 3) == 6


def test_events_arrive_in_order(worker: Worker) -> None:
    events: list[dict[str, Any]] = []
    assert worker.call(report, 3, watch=events.append) == "ended"
    assert events == [{"kind": "progress", "done": done, "total": 3} for done in (1, 2, 3)]
    assert worker.call(report, 3) == "ended"
    assert report(1) == "ended", "outside of a worker an event goes nowhere"


def test_an_exception_is_carried_with_its_traceback(worker: Worker) -> None:
    with pytest.raises(StepFailed) as caught:
        worker.call(fail, ValueError("rank must be\n  positive"))
    assert caught.value.cause == "ValueError: rank must be positive"
    assert "in fail" in caught.value.detail
    assert worker.call(add, 1) == 1, "the process lives on"


def test_a_user_error_keeps_its_words(worker: Worker) -> None:
    with pytest.raises(StepFailed) as caught:
        worker.call(_refuse)
    assert caught.value.cause == "targets [x] fit no layer. Its layers: query. Name one."


def _refuse() -> None:
    raise TrimtuneError("targets [x] fit no layer.", "Its layers: query.", "Name one.")


def test_a_result_that_cannot_travel_is_a_failure(worker: Worker) -> None:
    with pytest.raises(StepFailed, match="lambda"):
        worker.call(unpicklable)


def test_a_killed_child_has_a_cause(worker: Worker) -> None:
    with pytest.raises(StepFailed, match="killed .signal 9.*memory"):
        worker.call(die, signal.SIGKILL)
    with pytest.raises(StepFailed, match="killed"):
        worker.call(add, 1)


def test_a_crash_names_its_signal(worker: Worker) -> None:
    with pytest.raises(StepFailed, match="signal 11 .SIGSEGV"):
        worker.call(die, signal.SIGSEGV)


def test_a_silent_exit_names_its_status(worker: Worker) -> None:
    with pytest.raises(StepFailed, match="exit status 3"):
        worker.call(leave, 3)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS binds on Linux only")
def test_running_out_of_memory_has_a_cause(worker: Worker) -> None:
    with pytest.raises(StepFailed, match="^out of memory: "):
        worker.call(eat_memory, 64)


def test_torch_running_out_of_memory_has_the_same_cause(worker: Worker) -> None:
    with pytest.raises(StepFailed, match="^out of memory: "):
        worker.call(giant_tensor)


def test_what_a_step_prints_goes_into_its_log(worker: Worker, capfd: pytest.CaptureFixture[str]) -> None:
    worker.call(say, "a loud library")
    assert capfd.readouterr() == ("", "")
    assert worker.log is not None
    assert worker.log.read_text().count("a loud library") == 2


def test_closing_ends_the_process() -> None:
    worker = Worker()
    pid = worker.call(os.getpid)
    worker.close()
    assert gone(pid)


@pytest.mark.parametrize(("error", "cause"), [
    (MemoryError(), "out of memory: the allocation failed"),
    (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "out of memory: CUDA out of memory. Tried to allocate 2 GiB"),
    (RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)"),
     "out of memory: unable to mmap 9 bytes: Cannot allocate memory (12)"),
    (FileNotFoundError(2, "No such file or directory", "x.csv"), "No such file or directory: x.csv"),
    (KeyError("loss"), "KeyError: 'loss'"),
])
def test_a_cause_is_one_line(error: Exception, cause: str) -> None:
    assert cause_of(error) == cause


@pytest.mark.slow
def test_a_killed_run_leaves_no_process_behind(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, time\nfrom trimtune.process import Worker\nworker = Worker()\n"
                      "print(worker.call(os.getpid), flush=True)\nworker.call(time.sleep, 600)\n")
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        child = int(run.stdout.readline())
        assert not gone(child, seconds=0.1)
        run.kill()
        assert gone(child), "the worker outlived the run"


@pytest.mark.slow
def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("print('once')\nfrom trimtune.process import Worker\n"
                      "with Worker() as worker:\n    print(worker.call(abs, -3))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("once\n3\n", "", 0)


@pytest.mark.slow
def test_a_process_that_starts_anew_as_on_macos_does_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trimtune.process._START", "spawn")
    with Worker(tmp_path / "log") as worker:
        assert worker.call(os.getppid) == os.getpid(), "no fork server between"
        assert worker.call(add, 2, b=3) == 5
        assert worker.call(torch_threads) == threads()
        with pytest.raises(StepFailed, match="signal 9"):
            worker.call(die, signal.SIGKILL)
