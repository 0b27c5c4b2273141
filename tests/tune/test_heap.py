import os
import subprocess
import sys

import pytest

STEPS = """
import resource, sys
import torch
from trimtune.tune import heap
if sys.argv[1] == "prepared":
    heap.prepare()
def step():
    kept = [torch.ones(2**18) for _ in range(32)]  # 32 activations of 1 MB
    return sum(float(one[-1]) for one in kept)
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
assert step() + step() == 64
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's heap")
def test_a_step_finds_the_memory_that_the_one_before_it_freed():
    given_back = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}  # glibc's own start, which it moves as it sees fit
    faults = {kind: int(subprocess.run([sys.executable, "-c", STEPS, kind], env=given_back, capture_output=True, text=True,
                                       check=True).stdout) for kind in ("prepared", "plain")}
    assert faults["prepared"] < 100 <= faults["plain"]
