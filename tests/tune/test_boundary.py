"""States stored at the first layer that learns, against the whole model run each time."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from trimtune import parts
from trimtune.records import Use
from trimtune.store import Store
from trimtune.tasks import text_classification as task
from trimtune.tune import boundary, features, fitting, forecast, layers, search, trainable
from trimtune.tune.fits import Fits

SMALL = {"distilbert": {"dim": 32, "hidden_dim": 64, "n_layers": 4, "n_heads": 4}, "roberta": {}, "mpnet": {},
         "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4}, "electra": {"embedding_size": 16},
         "modernbert": {"local_attention": 4}, "deberta-v2": {"relative_attention": True, "max_position_embeddings": 64}}
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
USES = [("top_k_layers", {"k": 2}), ("top_k_layers", {"k": 5}), ("lora", {"layers": 1, "dropout": 0.0})]


def use(name, config):
    return Use(name=name, config=parts.load("method", name).Config(**config).model_dump())


def random_model(kind):
    sizes = SMALL[kind] if "dim" in SMALL[kind] or "n_embd" in SMALL[kind] else {**SIZES, **SMALL[kind]}
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, vocab_size=99, num_labels=3, pad_token_id=0, **sizes)
    return AutoModelForSequenceClassification.from_config(config, attn_implementation="eager").eval()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), USES)
def test_a_fit_on_stored_states_is_the_fit_of_the_whole_model(name, config, small, tmp_path, monkeypatch):
    study, _, base, rows = small
    fast = Fits(use(name, config), study, base, rows, Store(tmp_path / "fast"))(5e-4, 0)
    monkeypatch.setattr(features, "kept", lambda *_: None)
    plain = Fits(use(name, config), study, base, rows, Store(tmp_path / "plain"))(5e-4, 0)
    assert fast.facts["curve"] == plain.facts["curve"]
    assert len(fast.parents) == len(plain.parents) + 1
    models = [task.load_model(made.folder).state_dict() for made in (fast, plain)]
    untouched = task.load_base(base.folder).state_dict()
    moved = max(float((models[1][key] - untouched[key]).abs().max()) for key in untouched if "classifier" not in key)
    for key, value in models[0].items():
        assert float((value - models[1][key]).abs().max()) < 0.02 * moved, key


@pytest.mark.slow
def test_states_are_computed_once_and_shared(small, tmp_path):
    study, _, base, rows = small
    store = Store(tmp_path)
    first = Fits(use("top_k_layers", {"k": 1}), study, base, rows, store)
    fits = [first(rate, 0) for rate in (1e-4, 1e-3)]
    fits.append(Fits(use("lora", {"layers": 1}), study, base, rows, store)(1e-3, 0))
    assert len({made.parents[-1] for made in fits}) == 1
    assert sum(step.step == "features" and not step.reused for step in store.steps) == 1
    facts = store.seen(fits[0].parents[-1]).facts
    assert facts["stored"]
    assert facts["tokens"] * 384 * 4 == round(facts["megabytes"] * 1e6)


@pytest.mark.slow
def test_states_that_would_take_too_much_memory_are_not_stored_and_the_fit_runs_the_whole_model(small, tmp_path, monkeypatch):
    study, _, base, rows = small
    monkeypatch.setattr(boundary, "MEMORY_SHARE", 1e-9)
    facts = boundary.compute(tmp_path, base=base.folder, rows=rows.folder, task=study.task, batch_size=32, max_length=48,
                             precision_="fp32", top_layers=2, reading={})
    assert not facts["stored"]
    assert "of the memory" in facts["why"]
    assert not list(tmp_path.iterdir())
    assert not boundary.compute(tmp_path, base=base.folder, rows=rows.folder, task=study.task, batch_size=32, max_length=48,
                                precision_="fp32", top_layers=6, reading={})["stored"]


@pytest.mark.parametrize("kind", SMALL)
def test_other_architectures_run_from_the_boundary_too(kind):
    model, draw = random_model(kind), torch.Generator().manual_seed(0)
    ids = [torch.randint(1, 99, (length,), generator=draw).tolist() for length in (3, 9, 5, 17, 12, 4, 30)]
    with torch.inference_mode():
        assert boundary.agrees(model, 2, ids, 0)


def test_a_model_that_reads_its_lowest_layer_again_is_found_out(monkeypatch):
    model = random_model("roberta")
    lowest, highest = layers.layers_of(model)[0], layers.layers_of(model)[3]
    lowest.register_forward_hook(lambda _, args, out: setattr(highest, "skipped", out))
    highest.register_forward_hook(lambda layer, args, out: out + layer.skipped)
    with torch.inference_mode():
        assert not boundary.agrees(model, 2, [[5, 6, 7], [8, 9, 10, 11, 12]], 0)


@pytest.mark.parametrize("name", [name for name in parts.names("method") if hasattr(parts.load("method", name), "top_layers")])
def test_a_method_with_top_layers_leaves_all_below_alone(name, small):
    _, _, base, _ = small
    method = parts.load("method", name)
    config = next(made for field in method.Config.model_fields if field in ("k", "layers")
                  for made in [method.Config(**{field: 2})] if method.top_layers(made) == 2)
    model = fitting.prepared(task, method, config, base.folder, seed=0)
    assert {key.split("encoder.layer.")[1][0] for key in trainable.trained(model) if "encoder.layer." in key} == {"4", "5"}
    assert not [key for key in trainable.trained(model) if "embeddings" in key]
    untouched = task.load_base(base.folder).state_dict()
    found = {key.replace("base_model.model.", ""): value for key, value in model.state_dict().items()}
    for key in untouched:
        if "embeddings" in key or any(f"encoder.layer.{index}." in key for index in range(4)):
            assert torch.equal(found[key], untouched[key]), key


@pytest.mark.slow
def test_a_forecast_counts_the_states_once_and_the_upper_layers_per_epoch(small, tmp_path):
    study, _, base, rows = small
    study = study.model_copy(update={"fit": study.fit.model_copy(update={"epochs": 1})})  # no trial pauses
    store = Store(tmp_path)
    found = {k: forecast.of(use("top_k_layers", {"k": k}), study, base, rows, store) for k in (1, 6)}
    probes = {step.key: store.seen(step.key).facts for step in store.steps if step.step == "forecast"}
    assert sorted(facts["on_states"] for facts in probes.values()) == [False, True]
    assert search.rungs(study.budget.trials, study.fit.epochs) == [(study.fit.epochs, study.budget.trials)]
    fits = study.budget.trials + search.BEYOND + study.budget.seeds - 1
    assert found[1]["minutes"] < fits * found[1]["fit_minutes"]  # the states are in the first fit only
    assert found[6]["minutes"] == pytest.approx(fits * found[6]["fit_minutes"])
