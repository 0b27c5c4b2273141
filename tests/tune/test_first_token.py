import copy

import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from trimtune.tune.first_token import narrow

SMALL = dict(vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=64,
             hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)


def model_of(kind, attention="eager", **more):
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**SMALL, **more})
    return AutoModelForSequenceClassification.from_config(config, attn_implementation=attention).train()


def run(model):
    ids = torch.randint(2, 60, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(9) < torch.tensor([9, 7, 4, 9])[:, None]).long()
    logits = model(input_ids=ids, attention_mask=mask).logits
    logits.square().sum().backward()
    return {"logits": logits, **{name: parameter.grad for name, parameter in model.named_parameters()}}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "roberta"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_answers_and_gradients_are_those_of_the_whole_block(kind, attention):
    whole = model_of(kind, attention)
    narrowed = copy.deepcopy(whole)
    assert narrow(narrowed)
    assert narrowed.training
    found, reference = run(narrowed), run(whole)
    for name, value in reference.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_a_head_that_reads_every_position_is_left_alone():
    model = model_of("bert")
    model.bert.pooler.forward = lambda hidden: hidden.mean(1)
    assert not narrow(model)
    assert model.bert.encoder.layer[-1](torch.randn(2, 5, 32)).shape == (2, 5, 32)


@pytest.mark.parametrize("kind", ["distilbert", "gpt2"])
def test_other_architectures_are_left_alone(kind):
    more = dict(dim=32, n_layers=2, n_heads=4, hidden_dim=64, pad_token_id=0) if kind == "distilbert" else dict(
        n_embd=32, n_layer=2, n_head=4, n_positions=64, pad_token_id=0)
    config = AutoConfig.for_model(kind, vocab_size=60, **more)
    assert not narrow(AutoModelForSequenceClassification.from_config(config))
