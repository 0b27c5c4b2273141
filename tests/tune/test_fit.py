"""Fits of the real model on real rows, every method found in the folder."""

import hashlib

import pytest
import torch

from trimtune import parts
from trimtune.records import Fit, Use
from trimtune.tasks import text_classification
from trimtune.tune.fits import Fits

METHODS = parts.names("method")


def use(name):
    return Use(name=name, config=parts.load("method", name).Config().model_dump())


def rate(name):
    low, high = parts.load("method", name).LEARNING_RATES
    return (low * high) ** 0.5


@pytest.fixture(scope="module")
def fits(small):
    study, store, base, rows = small
    return {name: Fits(use(name), study, base, rows, store)(rate(name), 0) for name in METHODS}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_fit_learns_says_what_it_did_and_reloads_as_it_was_scored(method, fits, small):
    study, _, _, rows = small
    artifact = fits[method]
    facts = artifact.facts
    assert facts["validation_score"] == max(facts["curve"]) > 0.4  # three classes: chance is a third
    assert 0 < facts["trained_parameters"] <= facts["parameters"]
    assert facts["tokens_per_s"] > 0
    assert artifact.peak_memory_mb > 100
    from trimtune.tune.scoring import score_model

    scored = score_model(artifact.folder, artifact.folder, rows.folder, "validation", study.fit.max_length, study.task)
    assert scored["score"] == pytest.approx(facts["validation_score"], abs=0.03)  # head and adapter came back


@pytest.mark.slow
def test_the_same_recipe_gives_the_same_bytes(small, tmp_path):
    from trimtune.store import Store

    study, _, base, rows = small
    twice = [Fits(use("lora"), study, base, rows, Store(tmp_path / name))(1e-3, 7) for name in ("a", "b")]
    hashes = [{name: hashlib.sha256((made.folder / name).read_bytes()).hexdigest() for name in made.files} for made in twice]
    assert hashes[0] == hashes[1]


@pytest.mark.slow
def test_a_fit_that_gets_no_better_ends_early_and_its_best_epoch_counts(small):
    study, store, base, rows = small
    asked = study.model_copy(update={"fit": Fit(epochs=9, max_length=48, precision="fp32", patience=2)})
    facts = Fits(use("head"), asked, base, rows, store)(1e-9, 0).facts  # too small a rate to change any answer
    assert facts["epochs_run"] == len(facts["curve"]) == 3
    assert facts["validation_score"] == facts["curve"][0]
    assert 0 < facts["seconds_to_99"] < facts["train_seconds"]
    endless = asked.model_copy(update={"fit": asked.fit.model_copy(update={"patience": 0})})
    assert Fits(use("head"), endless, base, rows, store)(1e-9, 0).facts["epochs_run"] == 9


@pytest.mark.slow
def test_a_lora_adapter_loads_in_plain_peft_with_equal_logits_head_included(fits, small):
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    _, _, base, _ = small
    folder = fits["lora"].folder
    plain = AutoModelForSequenceClassification.from_pretrained(base.folder)
    plain = PeftModel.from_pretrained(plain, str(folder / "adapter")).eval()
    tokens = text_classification.encode(text_classification.load_tokenizer(folder), ["cannot log in", "my money back, now"], 32)
    inputs = {name: torch.from_numpy(value) for name, value in tokens.items()}
    with torch.no_grad():
        merged = text_classification.load_model(folder)(**inputs).logits
        unmerged = text_classification.load_model(folder, merge=False)(**inputs).logits
        assert torch.allclose(plain(**inputs).logits, unmerged, atol=1e-5)
        assert torch.allclose(merged, unmerged, atol=1e-4)


@pytest.mark.slow
def test_frozen_weights_stay_what_they_were(fits, small):
    _, _, base, _ = small
    for method in ("lora", "prefix", "prompt"):
        assert (fits[method].folder / "model.safetensors").samefile(base.folder / "model.safetensors")
        assert (fits[method].folder / "adapter" / "adapter_model.safetensors").stat().st_size < 3e6


@pytest.mark.slow
def test_lora_names_the_layers_there_are_when_the_targets_fit_none(small):
    from trimtune.errors import StepFailed

    study, store, base, rows = small
    wrong = Use(name="lora", config={**use("lora").config, "targets": ["q_proj"]})
    with pytest.raises(StepFailed, match="query"):
        Fits(wrong, study, base, rows, store)(1e-3, 0)
