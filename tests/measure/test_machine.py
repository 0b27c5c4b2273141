from __future__ import annotations

import json

import numpy as np
import pytest

from trimtune.measure import _machine


def test_the_description_is_plain_json_and_stays_the_same() -> None:
    found = _machine.describe()
    _machine.describe.cache_clear()
    assert _machine.describe() == found == json.loads(json.dumps(found))
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gb"] > 0.5


def test_the_peak_counts_from_the_reset_on() -> None:
    block = np.ones(20_000_000)  # 160 MB
    high = _machine.peak_mb()
    del block
    if not _machine.reset_peak():
        pytest.skip("this system can't reset its peak counter")
    calm = _machine.peak_mb()
    assert calm < high - 100
    block = np.ones(10_000_000)
    assert 60 < _machine.peak_mb() - calm < 100
    del block
