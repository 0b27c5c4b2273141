"""What a method leaves on disk is what it had in memory: every method found in the folder, and what its options change."""

import pytest
import torch

from trimtune import parts
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.tune import feeds, fitting, loop, trainable
from trimtune.tune.optimizer import Masters

OPTIONS = [("p_tuning", {"encoder": "lstm", "hidden": 64}), ("top_k_layers", {"k": 6, "dropout": 0.1}), ("lora", {"dora": True}),
           ("lora", {"layers": 2, "targets": ["query", "dense"]}), ("lora", {"rslora": True, "bias": "all"}),
           ("lora", {"init": "pissa"}), ("lora", {"init": "olora", "rslora": True}),
           ("lora", {"init": "pissa", "dora": True, "targets": ["query", "value"]})]
USES = [*((name, {}) for name in parts.names("method") if task.__name__.rsplit(".", 1)[-1] in parts.load("method", name).TASKS),
        *OPTIONS]


def named(use):
    return use[0] + "".join(f"-{key}={value}" for key, value in use[1].items())


def fitted(use, small, folder):
    """The model in memory after one epoch in float32, and its folder."""
    _, _, base, rows = small
    method = parts.load("method", use[0])
    model = fitting.prepared(task, method, method.Config(**use[1]), base.folder, seed=0)
    before = {name: value.detach().clone() for name, value in trainable.trained(model).items()}
    feed, validation = feeds.token_feeds(model, task, base.folder, data.load(rows.folder), 48)
    low, high = method.LEARNING_RATES
    masters = Masters(list(trainable.trained(model).values()), list(before.values()), (low * high) ** 0.5, steps=3)
    learned = loop.train(model, masters, feed, validation, task.loss, task.score, epochs=1, batch_size=32, seed=0).best
    kept = dict(zip(before, learned, strict=True))
    trainable.save(folder, base.folder, model, kept, before, task, "minilm")
    return model.eval(), before, kept


def inputs(folder):
    tokens = task.encode(task.load_tokenizer(folder), ["cannot log in", "I want my money back, and I want it now"], 32)
    return {name: torch.from_numpy(value) for name, value in tokens.items()}


@pytest.mark.slow
@pytest.mark.parametrize("use", USES, ids=named)
def test_a_tuned_folder_answers_as_the_model_did_in_memory(use, small, tmp_path):
    model, before, kept = fitted(use, small, tmp_path)
    assert any(not torch.equal(before[name], kept[name]) for name in before)
    with torch.no_grad():
        expected = model(**inputs(tmp_path)).logits
        for merge in (False, True):
            found = task.load_model(tmp_path, attention="eager", merge=merge)(**inputs(tmp_path)).logits
            assert torch.allclose(found, expected, atol=1e-4), (merge, (found - expected).abs().max())
        if (tmp_path / task.ADAPTER).is_dir():
            from peft import PeftModel
            from transformers import AutoModelForSequenceClassification

            _, _, base, _ = small
            assert (tmp_path / trainable.WEIGHTS).samefile(base.folder / trainable.WEIGHTS)
            plain = AutoModelForSequenceClassification.from_pretrained(base.folder)
            plain = PeftModel.from_pretrained(plain, str(tmp_path / task.ADAPTER)).eval()
            assert torch.allclose(plain(**inputs(tmp_path)).logits, expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_the_start_is_taken_out_of_the_frozen_weight(init, small):
    _, _, base, _ = small
    method = parts.load("method", "lora")
    model = fitting.prepared(task, method, method.Config(init=init), base.folder, seed=0)
    name = "bert.encoder.layer.0.attention.self.query"
    layer, untouched = model.base_model.model.get_submodule(name), task.load_base(base.folder).get_submodule(name).weight
    assert not torch.allclose(layer.base_layer.weight, untouched, atol=1e-3)
    assert torch.allclose(layer.base_layer.weight + layer.get_delta_weight("default"), untouched, atol=1e-5)


@pytest.mark.parametrize(("name", "config", "given", "allowed"), [
    ("ia3", {"targets": ["k_proj"]}, "k_proj", "query"), ("ia3", {}, "Please specify", "q_lin"),
    ("bitfit", {}, "no biases", "BERT"),
    ("top_k_layers", {"k": 7}, "top 7", "6 of them"), ("lora", {"layers": 7}, "top 7", "6 of them"),
    ("top_k_layers", {}, "no list of 12 layers", "BERT")])
def test_a_method_says_what_it_can_not_do_with_a_model(name, config, given, allowed, small):
    from transformers import AlbertConfig, AlbertForSequenceClassification, DistilBertConfig, DistilBertForSequenceClassification

    from trimtune.errors import TrimtuneError

    _, _, base, _ = small
    model = task.load_base(base.folder)
    if "Please specify" in given:
        model = DistilBertForSequenceClassification(DistilBertConfig(vocab_size=9, dim=8, hidden_dim=8, n_layers=1, n_heads=2))
    elif "no list" in given:
        model = AlbertForSequenceClassification(AlbertConfig(vocab_size=9, embedding_size=8, hidden_size=8, intermediate_size=8,
                                                             num_attention_heads=2))
    elif "biases" in given:
        model = torch.nn.Sequential()
        model.add_module("classifier", torch.nn.Linear(2, 2))
    method = parts.load("method", name)
    with pytest.raises(TrimtuneError) as caught:
        method.prepare(model, method.Config(**config), task.PEFT_TASK)
    assert given in caught.value.given
    assert allowed in caught.value.allowed
    assert caught.value.do
