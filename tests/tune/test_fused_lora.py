import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers.pytorch_utils import Conv1D

from trimtune.tune import dropout
from trimtune.tune.fused_lora import fuse


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Linear(24, 40), torch.nn.Linear(40, 16, bias=False)
        self.third = Conv1D(12, 16)

    def forward(self, x):
        return self.third(self.second(torch.tanh(self.first(x))))


def adapted(**settings):
    torch.manual_seed(0)
    model = get_peft_model(Block(), LoraConfig(r=4, lora_alpha=12, target_modules=["first", "second", "third"], **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
    return model


def run(model, x):
    """Output and every gradient, with torch's generator at a known place."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_(True)
    out = model(x)
    out.square().sum().backward()
    return [out, x.grad, *(parameter.grad for parameter in model.parameters() if parameter.requires_grad)]


@pytest.mark.parametrize("shape", [(5, 24), (2, 5, 24)])
@pytest.mark.parametrize("p", [0.0, 0.25])
def test_output_and_gradients_equal_those_of_peft(shape, p):
    reference = adapted(lora_dropout=p).double()
    dropout.quicken(reference, seed=0)
    fused = copy.deepcopy(reference)
    assert fuse(fused, seed=0) == 3
    torch.manual_seed(2)
    x = torch.randn(shape, dtype=torch.float64)
    for ours, peft in zip(run(fused.train(), x), run(reference.train(), x), strict=True):
        torch.testing.assert_close(ours, peft, rtol=1e-9, atol=1e-9)


def test_eval_mode_drops_nothing():
    reference = adapted(lora_dropout=0.5)
    fused = copy.deepcopy(reference)
    fuse(fused, seed=0)
    x = torch.randn(3, 24)
    torch.testing.assert_close(fused.eval()(x), reference.eval()(x))


def test_half_precision_stays_near_float32():
    reference = adapted()
    fused = copy.deepcopy(reference).bfloat16()
    fuse(fused, seed=0)
    x = torch.randn(64, 24)
    for ours, peft in zip(run(fused, x.bfloat16()), run(reference, x), strict=True):
        assert float((ours.float() - peft).norm() / peft.norm()) < 0.02


@pytest.mark.parametrize("settings", [{"use_dora": True}, {"lora_bias": True}, {"bias": "all"}])
def test_layers_with_more_to_them_keep_their_own_forward(settings):
    left = 0 if "bias" not in settings else 1  # `second` has no bias that could learn
    assert fuse(adapted(**settings), seed=0) == left
