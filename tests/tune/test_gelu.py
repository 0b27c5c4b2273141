import pytest
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification

from trimtune.tune import gelu


def model_of(activation):
    torch.manual_seed(0)
    config = AutoConfig.for_model("gpt2", vocab_size=60, n_embd=32, n_layer=2, n_head=4, pad_token_id=0,
                                  activation_function=activation)
    return AutoModelForSequenceClassification.from_config(config).eval()


def answered(model, ids):
    """Logits and the gradient of the first block's weights."""
    model.zero_grad()
    logits = model(input_ids=ids).logits
    logits.square().sum().backward()
    return logits.detach(), model.transformer.h[0].mlp.c_fc.weight.grad.clone()


@pytest.mark.parametrize("written_out", ["gelu_new", "gelu_fast"])
def test_answers_and_gradients_are_those_of_the_one_written_out(written_out):
    model, ids = model_of(written_out), torch.arange(1, 19).view(2, 9)
    before = answered(model, ids)
    assert gelu.fuse(model) == 2
    torch.testing.assert_close(answered(model, ids), before)
    assert gelu.fuse(model) == 0


def test_the_exact_gelu_is_another_function_and_stays():
    model = model_of("gelu")
    before = model.transformer.h[0].mlp.act
    assert gelu.fuse(model) == 0
    assert model.transformer.h[0].mlp.act is before


def test_it_keeps_a_quarter_for_the_backward_pass():
    kept = []
    model = model_of("gelu_new")
    x = torch.randn(4, 128, requires_grad=True)
    for _ in range(2):
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
                lambda one, sizes=sizes: (sizes.update({one.data_ptr(): one.numel()}), one)[1], lambda one: one):
            model.transformer.h[0].mlp.act(x)
        kept.append(sum(sizes.values()))
        gelu.fuse(model)
    assert kept[1] == x.numel() and kept[0] >= 4 * x.numel()
