"""What every measure part must keep, found by listing the folder."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from trimtune import parts
from trimtune.choose.speeds import TIMED
from trimtune.records import DataSpec

MEASURES = parts.names("measure")


def test_the_promised_readings_are_there() -> None:
    named = [reading for name in MEASURES for reading in parts.load("measure", name).READINGS]
    assert set(named) >= {"accuracy", "macro_f1", "worst_class_accuracy", "calibration_error", "latency_p50_ms", "latency_p95_ms",
                          "throughput_rows_per_s", "peak_memory_mb", "private_memory_mb", "size_mb", "weights_mb",
                          "tokenizing_ms", "load_ms", "load_again_ms",
                          "energy_mj_per_row", "perplexity", "bleu", "rouge_l", "exact_match",
                          "number_match", "ended", "format_valid", "general_perplexity", "forgetting",
                          "first_token_ms", "tokens_per_s", "tokens_per_s_8", "kv_cache_mb"}


@pytest.mark.parametrize("task", parts.names("task"))
def test_each_task_has_one_pace_and_one_way_to_compare_rows(task: str) -> None:
    """Without a pace nobody could tell whether figures taken on two days may stand side by side."""
    mine = [module for name in MEASURES if task in (module := parts.load("measure", name)).TASKS]
    assert sum(hasattr(module, "pace_ms") for module in mine) == 1
    assert sum(hasattr(module, "by_row") for module in mine) == 1
    assert all(hasattr(module, "by_round") == hasattr(module, "TURNS") for module in mine)
    turns = [module.TURNS for module in mine if hasattr(module, "TURNS")]
    assert "ms" in turns
    assert len(turns) == len({*turns} & {*TIMED.values()}), "each is what speeds are compared by, and only one measure's"
    assert sum(hasattr(module, "examples") for module in mine) <= 1
    assert {"peak_memory_mb", "size_mb"} < {reading for module in mine for reading in module.READINGS}


@pytest.mark.parametrize("name", MEASURES)
def test_what_a_reading_needs_is_a_key_of_data(name: str) -> None:
    module = parts.load("measure", name)
    assert getattr(module, "NEEDS", {}).keys() <= module.READINGS.keys()
    assert set(getattr(module, "NEEDS", {}).values()) <= DataSpec.model_fields.keys()


@pytest.mark.parametrize("name", MEASURES)
def test_shape_of_a_measure(name: str) -> None:
    module = parts.load("measure", name)
    assert module.__doc__
    assert len(module.__doc__) > 80
    assert module.ROUNDS >= 1
    assert all(all(quantity) and quantity.better in ("higher", "lower") for quantity in module.READINGS.values())
    assert callable(module.sample)
    assert callable(module.summarize)


@pytest.mark.parametrize("name", MEASURES)
def test_config_has_defaults_is_frozen_strict_and_plain(name: str) -> None:
    config = parts.load("measure", name).Config()
    json.dumps(config.model_dump())
    with pytest.raises(ValidationError):
        type(config)(no_such_setting=1)
    assert all(field.description for field in type(config).model_fields.values())
    for field in type(config).model_fields:
        with pytest.raises(ValidationError):
            setattr(config, field, 1)


def test_importing_the_measures_pulls_no_heavy_library() -> None:
    code = ("import sys; from trimtune import parts; [parts.load('measure', n) for n in parts.names('measure')]; "
            "print([m for m in ('torch', 'transformers', 'scipy', 'sklearn', 'pandas', 'datasets', 'sacrebleu', 'nltk') "
            "if m in sys.modules])")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
