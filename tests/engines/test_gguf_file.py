"""What a GGUF file can't say of a model is refused before anything is written; no library is needed for that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.engines.conftest import Folders
from tests.study.faults import fault

from trimtune.engines import _gguf_file, gguf_llamacpp


def llama(**settings: Any) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                                        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32, **settings))


def gpt2(**settings: Any) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=16, n_layer=1, n_head=2, **settings))


def mistral(**settings: Any) -> Any:
    from transformers import MistralConfig, MistralForCausalLM

    return MistralForCausalLM(MistralConfig(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                                            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32, **settings))


def qwen2(**settings: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                                        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=32, **settings))


def neox() -> Any:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    return GPTNeoXForCausalLM(GPTNeoXConfig(vocab_size=64, hidden_size=16, intermediate_size=24, num_hidden_layers=1,
                                            num_attention_heads=2))


YARN = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0, "original_max_position_embeddings": 8}
LINEAR = {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}


@pytest.mark.parametrize(("make", "settings", "named"), [
    (neox, {}, "gpt_neox"), (llama, {"hidden_act": "gelu"}, "hidden_act"), (llama, {"rope_parameters": YARN}, "rope_type"),
    (qwen2, {"rope_parameters": LINEAR}, "rope_type"), (mistral, {"sliding_window": 8}, "sliding_window"),
    (gpt2, {"activation_function": "relu"}, "activation_function"), (gpt2, {"scale_attn_weights": False}, "scale_attn_weights"),
    (gpt2, {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx")])
def test_what_llama_cpp_would_run_as_another_is_refused(make: Callable[..., Any], settings: dict[str, Any], named: str) -> None:
    fault(lambda: _gguf_file.layout(make(**settings)), named)


@pytest.mark.parametrize("model", [llama, gpt2, qwen2, lambda: mistral(sliding_window=None), lambda: mistral(sliding_window=32),
                                   lambda: llama(rope_parameters=LINEAR)])
def test_what_it_runs_has_a_name_for_every_tensor(model: Callable[[], Any]) -> None:
    made = model()
    found = dict(_gguf_file.tensors(made, _gguf_file.layout(made)))
    tied = made.get_output_embeddings().weight is made.get_input_embeddings().weight
    assert len(set(found) - {"rope_freqs.weight"}) == len(made.state_dict()) - tied
    assert ("output.weight" in found) == (not tied)


def test_a_tensor_without_a_place_is_refused() -> None:
    model = llama()
    model.model.layers[0].self_attn.register_buffer("sink", torch.zeros(2))
    fault(lambda: list(_gguf_file.tensors(model, _gguf_file.layout(model))), "self_attn.sink")


def test_rows_of_a_head_are_interleaved() -> None:
    assert _gguf_file.neighbors(torch.arange(8), 2).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert _gguf_file.neighbors(torch.arange(16).view(8, 2), 1)[:, 0].tolist() == [0, 8, 2, 10, 4, 12, 6, 14]


@pytest.mark.parametrize("kind", ["prefix", "prompt", "p_tuning"])
def test_virtual_tokens_are_refused(kind: str, folders: Folders, tmp_path: Path) -> None:
    fault(lambda: gguf_llamacpp.export(tmp_path, folders("gpt2", kind), {}, "plain", [], 32, "causal_lm"), kind, "lora")
    assert not any(tmp_path.iterdir())
