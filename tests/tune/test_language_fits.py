"""Fits of language models: real tokens through the real loop, on models of a few thousand weights."""

import csv
import math

import pytest
import torch
from tests.tasks import small_lm

from trimtune import parts
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.records import Budget, DataSpec, Fit, Study, Use
from trimtune.store import Store
from trimtune.study.stored import prepared
from trimtune.tasks import causal_lm as task
from trimtune.tasks._base import base_of
from trimtune.tune import boundary, feeds, fitting, forecast, loop, search
from trimtune.tune.fits import Fits

METHODS = [*(("llama", name) for name in ("full", "lora", "qlora", "prefix", "prompt", "p_tuning", "ia3", "top_k_layers")),
           *(("gpt2", name) for name in ("full", "lora", "qlora", "prefix"))]


def use(name, **config):
    part = parts.load("method", name)
    return Use(name=name, config=part.Config(**config).model_dump(), given=config)


def studied(folder):
    """A study of a folder's model and rows, its store, base and rows."""
    study = Study(name="s", model=str(folder / "model"), task="causal_lm", tune=(), trim=((),), engine=(),
                  data=DataSpec(**{name: str(folder / f"{name}.csv") for name in ("train", "validation", "test")}),
                  fit=Fit(epochs=2, batch_size=8, max_length=200, precision="fp32"), budget=Budget(trials=2, seeds=1, minutes=5))
    store = Store(folder / "store")
    rows, facts = prepared(study, store)
    return study, store, base_of(study, facts.labels, store), rows


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def language(request, tmp_path_factory):
    """A study of 64 prompts with their answers, its store, base and rows."""
    folder = tmp_path_factory.mktemp(request.param)
    small_lm.make(folder / "model", request.param)
    for name, count in (("train", 64), ("validation", 16), ("test", 16)):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["prompt", "completion"])
            writer.writerows([text, " ".join(reversed(text.split()))] for text in small_lm.texts(name)[:count])
    return studied(folder)


def fed(language, method, **config):
    study, _, base, rows = language
    part = parts.load("method", method)
    model = fitting.prepared(task, part, part.Config(**config), base.folder, seed=0)
    reading = task.reading(study, rows.facts["kind"])
    return model, *feeds.token_feeds(model, task, base.folder, task.rows.load(rows.folder), 200, reading)


@pytest.mark.slow
@pytest.mark.parametrize(("language", "method"), METHODS, indirect=["language"])
def test_every_method_learns_and_its_folder_answers_alike(language, method):
    study, store, base, rows = language
    low, high = parts.load("method", method).LEARNING_RATES
    made = Fits(use(method), study, base, rows, store)((low * high) ** 0.5, 0)
    assert made.facts["losses"][1] < made.facts["losses"][0]
    model = task.load_model(made.folder)
    reading = task.reading(study, rows.facts["kind"])
    inputs = task.inputs(task.load_tokenizer(made.folder), task.rows.load(rows.folder).validation, 200, "validation", **reading)
    found = loop.scored(model, feeds.token_feed(model, task, inputs), task.score, 4)
    assert found == pytest.approx(made.facts["validation_score"], abs=1e-3)
    assert math.exp(-found) < 600


@pytest.mark.slow
def test_a_quantized_fit_leaves_the_base_that_it_was_tuned_on(language, tmp_path):
    """In plain peft the folder answers as the fit did in memory, and a fit that paused leaves the same bytes."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from trimtune.tune import nf4, trainable

    study, _, base, rows = language
    asked = use("qlora")
    straight = Fits(asked, study, base, rows, Store(tmp_path / "a"))(3e-3, 0)
    fit_at = Fits(asked, study, base, rows, Store(tmp_path / "b"))
    fit_at(3e-3, 0, 1)
    whole = fit_at(3e-3, 0)
    assert (whole.files, whole.facts["curve"]) == (straight.files, straight.facts["curve"])
    plain = AutoModelForCausalLM.from_pretrained(whole.folder)
    before, changed = dict(task.load_base(base.folder).named_parameters()), 0
    for name, parameter in plain.named_parameters():
        if not torch.equal(parameter, before[name]):
            changed += 1
            assert len(parameter.detach().unique()) <= 16 * -(-parameter.numel() // nf4.BLOCK)
    assert changed == (12 if hasattr(plain.config, "n_head") else 21)
    part = parts.load("method", "qlora")
    model = fitting.prepared(task, part, part.Config(**asked.config), base.folder, seed=0)
    adapter = trainable.trained(PeftModel.from_pretrained(plain, str(whole.folder / task.ADAPTER), is_trainable=True))
    with torch.no_grad():
        for name, parameter in trainable.trained(model).items():
            parameter.copy_(adapter[name])
        assert any(parameter.abs().max() > 0 for name, parameter in adapter.items() if "lora_B" in name)
        tokens = {"input_ids": torch.arange(2, 22).view(2, 10)}
        states = model.eval()(**tokens).logits
        found = states @ model.get_output_embeddings().weight.t()
        wanted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(whole.folder),
                                           str(whole.folder / task.ADAPTER)).eval()(**tokens).logits
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
        merged = task.load_model(whole.folder)(**tokens).logits
        torch.testing.assert_close(merged, wanted, rtol=0, atol=1e-4)


def test_the_loss_is_that_of_transformers(language):
    _, feed, _ = fed(language, "full")
    batch, (_, _, base, _) = [0, 1, 2, 3], language
    plain = task.load_base(base.folder)
    whole, counts = 0.0, 0
    study, _, _, rows = language
    inputs = task.inputs(task.load_tokenizer(base.folder), task.rows.load(rows.folder).train, 200, "train",
                         **task.reading(study, rows.facts["kind"]))
    for row in batch:
        labels = torch.tensor([inputs.targets[row]])
        whole += float(plain(input_ids=torch.tensor([inputs.ids[row]]), labels=labels).loss.detach()) * inputs.counts[row]
        counts += inputs.counts[row]
    assert float(task.loss(*feed.answered(batch))) == pytest.approx(whole / counts, abs=1e-5)


@pytest.mark.parametrize("at_once", [1, 3])
def test_accumulated_gradients_equal_the_big_batch(language, at_once):
    """Weighted by learned tokens: the mean over these, not the mean of the pieces' means."""
    model, feed, _ = fed(language, "full")
    assert len(set(feed.counts[:8])) > 3, "rows of unlike answers"
    gradients = []
    for rows in (8, at_once):
        model.zero_grad()
        from trimtune.tune.parallel import ALONE

        for piece, weight in ALONE.pieces(list(range(8)), rows, feed.counts):
            (task.loss(*feed.answered(piece)) * weight).backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for whole, accumulated in zip(*gradients, strict=True):
        torch.testing.assert_close(accumulated, whole, rtol=1e-4, atol=1e-6)


def test_a_split_off_output_layer_changes_nothing(language):
    _, _, base, _ = language
    model, tokens = task.load_base(base.folder).eval(), {"input_ids": torch.arange(2, 12)[None]}
    with torch.no_grad():
        whole = model(**tokens).logits
        assert task.split_off(model)
        states = model(**tokens).logits
    torch.testing.assert_close(states @ model.get_output_embeddings().weight.t(), whole, rtol=1e-4, atol=1e-4)


def test_a_model_whose_logits_are_more_than_a_product_keeps_its_output_layer(language):
    _, _, base, _ = language
    model = task.load_base(base.folder).eval()
    output = model.get_output_embeddings()
    output.bias = torch.nn.Parameter(torch.ones(output.weight.shape[0]))
    tokens = {"input_ids": torch.arange(2, 12)[None]}
    with torch.no_grad():
        whole = model(**tokens).logits
        assert not task.split_off(model)
        assert torch.equal(model(**tokens).logits, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("language", "name"), [("llama", "lora"), ("gpt2", "top_k_layers")], indirect=["language"])
def test_states_at_a_boundary_give_the_fit_of_the_whole_model(language, tmp_path, monkeypatch, name):
    study, _, base, rows = language
    asked = use(name, layers=1) if name == "lora" else use(name, k=1)
    fast = Fits(asked, study, base, rows, Store(tmp_path / "fast"))(1e-3, 0)
    assert any(parent for parent in fast.parents if parent not in (base.key, rows.key))
    monkeypatch.setattr(boundary, "MEMORY_SHARE", 0.0)
    plain = Fits(asked, study, base, rows, Store(tmp_path / "plain"))(1e-3, 0)
    assert fast.facts["curve"] == pytest.approx(plain.facts["curve"], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["llama"], indirect=True)
def test_a_search_takes_the_likeliest(language, tmp_path):
    study, _, base, rows = language
    ledger, artifact = search.tune(use("lora"), study, base, rows, Store(tmp_path))
    assert all(trial.score < 0 for trial in ledger.trials)
    assert artifact.facts["validation_score"] == max(trial.score for trial in ledger.trials)


@pytest.mark.slow
def test_an_encoder_is_refused(tmp_path):
    from trimtune.study.model import locate

    study = Study(name="s", model="minilm", task="causal_lm", data=DataSpec(train="x"), tune=(), trim=((),), engine=())
    assert locate("minilm")
    with pytest.raises((TrimtuneError, StepFailed), match="see|weights|language model"):
        base_of(study, (), Store(tmp_path))


def test_class_weights_are_refused(language):
    with pytest.raises(TrimtuneError, match="class_weights"):
        task.loss_of("balanced", None)


@pytest.mark.slow
@pytest.mark.parametrize("language", ["llama"], indirect=True)
def test_a_fit_that_paused_ends_as_one_that_never_did(language, tmp_path):
    study, _, base, rows = language
    straight = Fits(use("lora"), study, base, rows, Store(tmp_path / "a"))(1e-3, 0)
    fit_at = Fits(use("lora"), study, base, rows, Store(tmp_path / "b"))
    fit_at(1e-3, 0, 1)
    whole = fit_at(1e-3, 0)
    assert whole.files == straight.files
    assert whole.facts["curve"] == straight.facts["curve"]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def unlike(request, tmp_path_factory):
    """A study of 24 plain texts, mostly short and a few long: in batches of 8 much of it would be padding."""
    folder = tmp_path_factory.mktemp(f"unlike_{request.param}")
    small_lm.make(folder / "model", request.param)
    for name in ("train", "validation", "test"):
        texts = small_lm.texts(name)
        long = [" ".join(texts[at:at + 8]) for at in range(0, 40, 8)]
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["text"], *([text] for text in [*long[:4], *texts[40:60]])])
    return studied(folder)


@pytest.mark.slow
@pytest.mark.parametrize(("unlike", "name", "config", "packing"), [
    ("llama", "full", {}, "auto"), ("gpt2", "lora", {"dropout": 0.0}, "on"), ("llama", "top_k_layers", {"k": 1}, "on")],
    indirect=["unlike"])  # the last one on stored states
def test_a_packed_fit_ends_where_the_padded_one_does(unlike, name, config, packing):
    study, store, base, rows = unlike
    low, high = parts.load("method", name).LEARNING_RATES
    made = []
    for asked in ("off", packing):
        fit = study.fit.model_copy(update={"packing": asked})
        fits = Fits(use(name, **config), study.model_copy(update={"fit": fit}), base, rows, store)
        made.append(fits((low * high) ** 0.5, 0).facts)
    padded, packed = made
    assert (padded["packed"], packed["packed"]) == (False, True)
    assert padded["losses"][1] < padded["losses"][0]
    assert packed["curve"] == pytest.approx(padded["curve"], abs=1e-3)
    assert packed["losses"] == pytest.approx(padded["losses"], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("unlike", ["llama"], indirect=True)
def test_a_prefix_is_padded_where_others_are_packed(unlike):
    study, store, base, rows = unlike
    assert not Fits(use("prefix"), study, base, rows, store)(1e-2, 0).facts["packed"]


@pytest.mark.slow
@pytest.mark.parametrize("unlike", ["llama"], indirect=True)
def test_a_forecast_can_be_made_of_packed_rows(unlike):
    study, store, base, rows = unlike
    assert forecast.of(use("top_k_layers", k=1), study, base, rows, store)["fit_minutes"] > 0


def test_an_adapted_output_layer_is_refused(language):
    with pytest.raises(TrimtuneError, match="targets include the output layer"):
        fed(language, "lora", targets=["lm_head"])


@pytest.mark.parametrize(("method", "virtual"), [("full", 0), ("prefix", 9)])
def test_rows_longer_than_the_model_has_positions_are_refused(language, method, virtual):
    model, *_ = fed(language, method, **({"virtual_tokens": virtual} if virtual else {}))
    held = model.config.max_position_embeddings - virtual
    fitting.refuse_long(model, held, lambda: 10**6)
    fitting.refuse_long(model, held + 1, lambda: held)
    with pytest.raises(TrimtuneError, match="positions") as caught:
        fitting.refuse_long(model, held + 1, lambda: held + 1)
    assert caught.value.do == f"Set fit.max_length to {held} or less."
