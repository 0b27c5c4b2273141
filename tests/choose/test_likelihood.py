"""The paired comparison of language models, against scipy and by what it says."""

import math

import numpy as np
import pytest
from tests.choose.candidates import row

from trimtune.choose.choose import choose
from trimtune.choose.likelihood import likelihoods, paired
from trimtune.errors import TrimtuneError


def test_with_equal_counts_it_is_the_paired_t_test():
    from scipy.stats import ttest_rel

    rng = np.random.default_rng(0)
    one, other = rng.normal(-20, 5, 60), rng.normal(-20.5, 5, 60)
    found, reference = paired(one - other, np.full(60, 10.0)), ttest_rel(one, other)
    assert found.p == pytest.approx(reference.pvalue, rel=1e-9)
    interval = reference.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((interval.low / 10, interval.high / 10), rel=1e-9)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Rows of unlike lengths, whose difference is in proportion to them and noisy."""
    rng, inside = np.random.default_rng(1), 0
    for _ in range(400):
        counts = rng.integers(3, 40, 80).astype(float)
        found = paired(0.05 * counts + rng.normal(0, 1, 80) * np.sqrt(counts), counts)
        inside += found.low <= 0.05 <= found.high
    assert 0.92 <= inside / 400 <= 0.98


def test_equal_rows_are_tied_and_a_constant_lead_is_not():
    counts = np.array([3.0, 5.0, 7.0])
    assert paired(np.zeros(3), counts).tied
    assert not paired(0.1 * counts, counts).tied


def test_what_rounding_changes_makes_nobody_better():
    """An engine may round all products down: a tiny lead, as sure as can be."""
    rng, counts = np.random.default_rng(3), np.full(100, 12.0)
    base = rng.normal(-30, 4, 100)
    lead = 1e-5 * counts + rng.normal(0, 1e-6, 100)
    rows = {name: [(-value, 12) for value in found] for name, found in (("a", base), ("b", base + lead), ("c", base + 0.1))}
    found = likelihoods(rows, ["a", "b", "c"])
    assert not found.better("b", "a")
    assert found.difference("b", "a").tied
    assert found.difference("b", "a").low <= 0 < found.difference("b", "a").high
    assert found.better("c", "b"), "0.8% lower in perplexity, on every prompt"


def test_one_row_decides_nothing():
    assert paired(np.array([5.0]), np.array([2.0])).tied


def test_a_candidate_without_scores_is_refused():
    with pytest.raises(TrimtuneError, match="of b don't match the 2 test prompts"):
        likelihoods({"a": [(1.0, 3), (2.0, 4)], "b": [(1.0, 3)]}, ["a", "b"])


def test_the_choice_speaks_of_perplexity():
    rng = np.random.default_rng(2)
    base = rng.normal(-30, 4, 50)
    rows = [row(name, engine="torch_eager", ms=ms) for name, ms in (("full", 9.0), ("lora", 4.0), ("prompt", 2.0))]
    scores = {"full@torch_eager": base, "lora@torch_eager": base + rng.normal(0, 0.5, 50), "prompt@torch_eager": base - 5}
    by_row = {name: [(-one, 20) for one in found] for name, found in scores.items()}
    choice = choose(rows, by_row, (), (), "quality", (), "perplexity")
    assert choice.picked == "lora@torch_eager"
    assert choice.tied == ("full@torch_eager", "lora@torch_eager")
    assert f"perplexity {math.exp(-scores['lora@torch_eager'].sum() / 1000):.3g} on 50 test prompts" in choice.sentence
    reasons = {rejection.candidate: rejection.reason for rejection in choice.rejected}
    assert reasons["full@torch_eager"].startswith("tied in perplexity with lora@torch_eager")
    assert "% higher in perplexity than lora@torch_eager (95% interval" in reasons["prompt@torch_eager"]
    assert "accura" not in choice.sentence + "".join(reasons.values())
