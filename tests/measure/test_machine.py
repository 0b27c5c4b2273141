from __future__ import annotations

import json
import subprocess
import sys

import pytest

from trimtune.measure import _machine


def test_the_description_is_plain_json_and_stays_the_same() -> None:
    found = _machine.describe()
    _machine.describe.cache_clear()
    assert _machine.describe() == found == json.loads(json.dumps(found))
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gb"] > 0.5


PEAKS = """
import numpy as np
from trimtune.measure import _machine
block = np.ones(20_000_000)  # 160 MB
high = _machine.peak_mb()
del block
reset, calm = _machine.reset_peak(), _machine.peak_mb()
block = np.ones(10_000_000)
print(high, int(reset), calm, _machine.peak_mb())
"""


def test_the_peak_counts_from_the_reset_on() -> None:
    """In a fresh process, as candidates are measured: one that has run fits keeps what it frees."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    high, reset, calm, after = map(float, done.stdout.split())
    if not reset:
        pytest.skip("this system can't reset its peak counter")
    assert calm < high - 100
    assert 60 < after - calm < 100
