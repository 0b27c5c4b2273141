"""Packed layers: the products of the rounded weights, forward and backward, in a fraction of the bytes."""

import copy

import pytest
import torch
from tests.tasks import small_lm
from transformers.pytorch_utils import Conv1D

from trimtune.errors import TrimtuneError
from trimtune.tasks import causal_lm as task
from trimtune.tune import device, fused_lora, memory, packed
from trimtune.tune.methods import qlora


class Backbone(torch.nn.Module):
    """One linear layer of each kind, as a transformers model would hold them."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.learns = torch.nn.Linear(40, 96), Conv1D(24, 96), torch.nn.Linear(24, 24)
        torch.nn.init.normal_(self.down.bias)
        self.base_model, self.get_output_embeddings = self, lambda: None
        self.up.requires_grad_(False)
        self.down.weight.requires_grad_(False)

    def forward(self, x):
        return self.learns(self.down(torch.tanh(self.up(x))))


def both(double=False):
    """A packed backbone, and a plain one with the rounded weights."""
    torch.manual_seed(0)
    plain = Backbone()
    plain.base_model = None
    small = copy.deepcopy(plain)
    plain.base_model, small.base_model = plain, small
    assert packed.pack(small, double) == 2
    with torch.no_grad():
        for name, value in packed.rounded(small).items():
            parameter = plain.get_parameter(name)
            assert 0 < float((parameter - value).norm() / parameter.norm()) < 0.12
            parameter.copy_(value)
    return small, plain


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def folder(request, tmp_path_factory):
    return small_lm.make(tmp_path_factory.mktemp(request.param), request.param)


@pytest.mark.parametrize("double", [False, True])
def test_output_and_gradients_are_those_of_the_rounded_weights(double):
    small, plain = both(double)
    x, found = torch.randn(3, 5, 40), []
    for model in (small, plain):
        into = x.clone().requires_grad_(True)
        out = model(into)
        out.square().sum().backward()
        found.append([out, into.grad, model.down.bias.grad, model.learns.weight.grad])
    for ours, wanted in zip(*found, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    assert not [name for name, _ in small.named_parameters() if name in ("up.weight", "down.weight")]


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "c_attn"]])
def test_the_fused_adapter_on_a_packed_layer_equals_pefts_own(folder, targets):
    runs = []
    for fuse in (False, True):
        torch.manual_seed(0)
        model = qlora.prepare(task.load_base(folder), qlora.Config(dropout=0, targets=targets), "CAUSAL_LM")
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.2)
        adapters = sum("lora_A" in name for name, _ in model.named_parameters())
        assert not fuse or fused_lora.fuse(model, 0) == adapters
        model(input_ids=torch.arange(2, 22).view(2, 10)).logits.square().sum().backward()
        runs.append({name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad})
    assert runs[0]
    for name, gradient in runs[0].items():
        torch.testing.assert_close(runs[1][name], gradient, rtol=1e-4, atol=1e-4 * float(gradient.abs().max()), msg=name)


def test_bytes_really_shrink_and_a_cast_leaves_them(folder):
    base = task.load_base(folder)
    kept = {name for name, _ in base.named_parameters() if "norm" in name or "ln_" in name or "wte" in name or "embed" in name}
    model = qlora.prepare(base, qlora.Config(), "CAUSAL_LM").get_base_model()
    device.put(model, torch.bfloat16)
    layers = [layer for layer in model.modules() if packed.is_packed(layer)]
    assert len(layers) == {"llama": 21, "gpt2": 12}["llama" if hasattr(model.config, "num_key_value_heads") else "gpt2"]
    for layer in layers:
        held = sum(tensor.nbytes for name, tensor in layer.named_buffers())
        assert held <= 0.6 * layer.in_features * layer.out_features + 64
        assert layer.packed.dtype == torch.uint8
        assert layer.weight_NK(torch.bfloat16).dtype == torch.bfloat16
    names = {name.replace(".base_layer", "") for name, _ in model.named_parameters()}
    assert kept <= names, "embeddings and norms are not packed"
    assert not [name for name in model.state_dict() if "packed" in name or "codes" in name], "nor kept in checkpoints"


def test_nothing_holds_the_checkpoint_that_was_packed(folder):
    """One tensor of a mapped file keeps all of its pages resident."""
    base = task.load_base(folder)
    before = {parameter.untyped_storage().data_ptr() for parameter in base.parameters()}
    model = qlora.prepare(base, qlora.Config(), "CAUSAL_LM")
    assert not before & {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}


def test_the_memory_forecast_knows_the_packed_bytes(folder):
    from trimtune.tune.methods import lora
    from trimtune.tune.trainable import counts

    plain = lora.prepare(task.load_base(folder), lora.Config(), "CAUSAL_LM")
    small = qlora.prepare(task.load_base(folder), qlora.Config(), "CAUSAL_LM")
    assert counts(plain) == counts(small)
    weights = packed.weights(small)
    saved_mb = memory.needed_mb(plain, 1, 8, torch.float32)[0] - memory.needed_mb(small, 1, 8, torch.float32)[0]
    unpacked_mb = 4 * packed.largest(small) / 1e6
    assert 3.3 * weights / 1e6 - unpacked_mb < saved_mb < 3.5 * weights / 1e6 - unpacked_mb


def test_a_model_without_plain_linear_layers_is_refused(folder):
    class Other(torch.nn.Linear):
        pass

    model = task.load_base(folder)
    for layer in model.base_model.modules():
        if isinstance(layer, torch.nn.Linear | Conv1D):
            layer.__class__ = Other if isinstance(layer, torch.nn.Linear) else type("Own", (Conv1D,), {})
    with pytest.raises(TrimtuneError) as caught:
        qlora.prepare(model, qlora.Config(), "CAUSAL_LM")
    assert "no plain linear layers" in caught.value.given
    assert "Conv1D" in caught.value.allowed
