"""Test processes side by side share out the cores; what a test starts sees its share alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests import own_cores
from tests.conftest import ROOT


def test_each_core_goes_to_one_process() -> None:
    assert [own_cores.share([0, 2, 5, 7, 9], index, 2) for index in range(2)] == [{0, 5, 9}, {2, 7}]
    assert own_cores.share([0, 2], 1, 2) == {2}
    assert own_cores.share([0, 2], 2, 3) == {0, 2}, "more processes than cores: nobody is kept to one"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system keeps no process to cores")
def test_a_process_takes_its_share_and_hands_it_on() -> None:
    mine = sorted(os.sched_getaffinity(0))
    code = ("import json, os, subprocess, sys\nfrom tests import own_cores\nown_cores.take()\n"
            "look = 'import json, os; print(json.dumps(sorted(os.sched_getaffinity(0))))'\n"
            "subprocess.run([sys.executable, '-c', look], check=True)")
    env = {**os.environ, "PYTEST_XDIST_WORKER": f"gw{len(mine) - 1}", "PYTEST_XDIST_WORKER_COUNT": str(len(mine))}
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout
    assert json.loads(shown) == mine[-1:]
