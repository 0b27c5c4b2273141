import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from trimtune.tune import device


def llama():
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                  num_key_value_heads=2, intermediate_size=64, tie_word_embeddings=True)
    return AutoModelForCausalLM.from_config(config).eval()


def test_parameters_take_the_format_and_rotary_frequencies_keep_theirs():
    model = llama()
    frequencies = model.model.rotary_emb.inv_freq.clone()
    device.put(model, torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.equal(model.model.rotary_emb.inv_freq, frequencies)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model(torch.arange(1, 10)[None]).logits.dtype == torch.bfloat16


def test_fits_stay_on_the_cpu_where_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: pytest.fail("asked for a GPU"))
    monkeypatch.setenv("TRIMTUNE_DEVICE", "cpu")
    assert device.here() == torch.device("cpu")
