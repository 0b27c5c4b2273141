"""The gate stops a language model that answers otherwise than what was tuned and measured, at the hop where it broke."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.ship import lm_run
from tests.ship.conftest import folder_of, result_of

from trimtune.errors import StepFailed
from trimtune.ship import bundle as bundles
from trimtune.ship import lm_parity
from trimtune.ship.lm_parity import CHANGED, EXACT, ROUNDED

Forge = Callable[[Path, Callable[[Path], None]], None]


def logits(tokens: int = 300, vocabulary: int = 40, scale: float = 3.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N, V] of a model that is often right, and the tokens."""
    draw = np.random.default_rng(0)
    target_N = draw.integers(0, vocabulary, tokens)
    logits_NV = draw.normal(size=(tokens, vocabulary)).astype(np.float32)
    logits_NV[np.arange(tokens), target_N] += 2
    return logits_NV * scale, target_N


def judged(after_NV: np.ndarray, allowed: lm_parity.Allowed) -> lm_parity.LMHop:
    before_NV, target_N = logits()
    return lm_parity.judged("hop", lm_parity.tokens(before_NV, after_NV, target_N), 10, allowed)


def test_perplexity_is_that_of_torch() -> None:
    import torch

    logits_NV, target_N = logits()
    hop = judged(logits_NV, EXACT)
    assert hop.passed
    expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits_NV).double(), torch.from_numpy(target_N)).exp().item()
    assert hop.perplexity == pytest.approx(expected, rel=1e-9)
    assert (hop.relative, hop.agreement, hop.max_difference) == (0, 1, 0)


def test_float32_must_be_as_close_as_promised_and_rounding_may_be_farther() -> None:
    before_NV, _ = logits()
    noise_NV = np.random.default_rng(1).normal(size=before_NV.shape).astype(np.float32)
    assert judged(before_NV + 1e-4 * noise_NV, EXACT).passed
    rounded = before_NV + 0.02 * noise_NV
    assert not judged(rounded, EXACT).passed
    assert judged(rounded, ROUNDED).passed
    coarse = before_NV + 0.4 * noise_NV
    assert not judged(coarse, ROUNDED).passed
    assert judged(coarse, CHANGED).passed
    assert not judged(np.roll(before_NV, 1, axis=-1), CHANGED).passed
    assert not judged(before_NV * 0, CHANGED).passed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_fail(bad: float) -> None:
    before_NV, _ = logits()
    after_NV = before_NV.copy()
    after_NV[7, 3] = bad
    assert not judged(after_NV, CHANGED).passed


def test_tokens_in_the_balance_are_not_held_against_an_engine() -> None:
    before_NV = np.zeros((100, 10), np.float32)
    before_NV[:, 0], before_NV[:, 1], before_NV[:, 9] = 5, 4.999, -5
    after_NV = before_NV.copy()
    after_NV[:, 1] = 5.001
    found = lm_parity.judged("hop", lm_parity.tokens(before_NV, after_NV, np.zeros(100, int)), 1, ROUNDED)
    assert (found.passed, found.agreement, found.clear_tokens) == (True, 0, 0)


def test_the_first_clear_divergence_is_shown_before_one_in_the_balance() -> None:
    before_NV = np.zeros((6, 5), np.float32)
    before_NV[:, 0] = 10
    before_NV[1, 1] = 9.99
    after_NV = before_NV.copy()
    after_NV[1, 1], after_NV[3, 2], after_NV[5, 2] = 10.01, 20, 20
    found = lm_parity.tokens(before_NV, after_NV, np.zeros(6, int))
    assert lm_parity.first(found) == 3
    assert lm_parity.first(lm_parity.tokens(before_NV[:2], after_NV[:2], np.zeros(2, int))) == 1
    assert lm_parity.first(lm_parity.tokens(before_NV, before_NV, np.zeros(6, int))) is None


def test_each_prompts_log_likelihood_must_be_the_recorded_one() -> None:
    recorded = [(12.0, 6), (0.01, 2), (30.0, 9)]
    assert lm_parity.compare_shipped(recorded, [(12.0005, 6), (0.01005, 2), (30.0, 9)]).passed
    changed = lm_parity.compare_shipped(recorded, [(12.0, 6), (0.02, 2), (30.0, 9)])
    assert not changed.passed
    assert "(prompt 2, allowed 0.0001)" in str(changed)
    assert not lm_parity.compare_shipped(recorded, [(float("nan"), 6), (0.01, 2), (30.0, 9)]).passed
    assert not lm_parity.compare_shipped(recorded, [(12.0, 6), (0.01, 3), (30.0, 8)]).passed
    assert "9 of 2" in lm_parity.compare_shipped(recorded, [recorded[0], (0.01, 3)]).note


def test_what_an_engine_promises_decides() -> None:
    assert lm_parity.allowed_of("torch_eager", "plain", "fp32") == EXACT
    assert lm_parity.allowed_of("torch_eager", "plain", "bf16") == ROUNDED
    changed = lm_parity.allowed_of("torch_eager", "int4", "int4")
    assert (changed.perplexity, changed.difference) == (CHANGED.perplexity, None)
    assert "int4" in changed.note


def _drop_adapter(folder: Path) -> None:
    shutil.rmtree(folder / "adapter")


def _overwrite_head(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path, config = folder / "model.safetensors", json.loads((folder / "config.json").read_text())
    tensors = load_file(path)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].roll(1, 0).contiguous()
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))


def _other_template(folder: Path) -> None:
    reading = json.loads((folder / "rendering.json").read_text())
    (folder / "rendering.json").unlink()
    (folder / "rendering.json").write_text(json.dumps({**reading, "template": reading["template"].replace(": ", " says ")}))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "fault", "says"), [
    ("prefix", _drop_adapter, "same next token on"), ("lora", _overwrite_head, "First in row"),
    ("lora", _other_template, "rendered differently than in training")])
def test_a_faulty_export_is_refused(kind: str, fault: Callable[[Path], None], says: str, own_lm_run: Path, forge: Forge) -> None:
    row = result_of(own_lm_run).row(lm_run.name_of(kind))
    forge(folder_of(own_lm_run, row.artifact), fault)
    _refused(own_lm_run, row.name, "model → engine", says)


@pytest.mark.slow
def test_likelihoods_other_than_the_measured_ones_are_refused(own_lm_run: Path) -> None:
    content = json.loads((own_lm_run / "result.json").read_text())
    name = content["choice"]["picked"]
    content["predictions"][name][3][0] *= 1.001
    (own_lm_run / "result.json").write_text(json.dumps(content))
    _refused(own_lm_run, name, "measured → bundle", "log-likelihood")


def _refused(run: Path, candidate: str, hop: str, says: str) -> None:
    out = run.parent.parent / "out"
    with pytest.raises(StepFailed, match=f"The parity gate refused to ship. {hop}: ") as caught:
        bundles.ship(run, out, candidate)
    assert says in str(caught.value)
    assert not [path for path in out.parent.iterdir() if "out" in path.name], "nothing is left"
