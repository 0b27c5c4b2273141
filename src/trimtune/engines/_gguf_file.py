"""A transformers language model as a GGUF file: its sizes under llama.cpp's keys, its tensors under llama.cpp's names.

Two families, and nothing that they don't say is written: a tensor without a name here is refused, not left out.

    Llama-like (llama, mistral, qwen2, qwen3)     norms without bias, rotary positions, gated feed-forward
    GPT-2-like (gpt2)                             positions in a table, biases, W stored [in, out] (Conv1D), q, k and v in one

Linear weights are [out, in]. Rotary positions: transformers turns row i of a head with row i + D/2, llama.cpp's `llama` row 2i
with row 2i + 1, so the rows of q and k are reordered for it; its `qwen2` and `qwen3` turn as transformers does. A table that
is also the output layer is written once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from trimtune.engines import _gguf_vocabulary
from trimtune.errors import TrimtuneError

if TYPE_CHECKING:
    import numpy as np
    import torch

_LLAMA = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
          "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
          "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
          "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
          "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
_GPT2 = {"transformer.wte": "token_embd", "transformer.wpe": "position_embd", "transformer.ln_f": "output_norm",
         "lm_head": "output", "ln_1": "attn_norm", "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
         "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}
"""transformers' name, inside its block where it has one → llama.cpp's"""
_BLOCK = re.compile(r"(?:model\.layers|transformer\.h)\.(\d+)\.(.+)")
_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast")
_SILUS = ("silu", "swish")
_ROPES = ("default", "linear", "llama3")
_WHOLE = ("position_embd", "rope_freqs")
"""matrices that llama.cpp expects in float32"""


class Layout(NamedTuple):
    """What the file says of a model: its architecture's name, its sizes by key, and the transformers' names of its tensors."""

    architecture: str
    sizes: dict[str, int | float]
    names: dict[str, str]


def layout(model: Any) -> Layout:
    """Raises TrimtuneError: an architecture, or a setting of it, that llama.cpp would run as another."""
    config = model.config
    families = {"llama": _llama_like, "mistral": _llama_like, "qwen2": _llama_like, "qwen3": _llama_like, "gpt2": _gpt2_like}
    if config.model_type not in families:
        raise TrimtuneError(f"gguf_llamacpp: the model is a {config.model_type}.", f"Written here: {', '.join(families)}.",
                            "Use torch_eager for it, or another base model.")
    found: Layout = families[config.model_type](model)
    return found


def write(path: Path, model: Any, tokenizer: Any, template: str, half: bool) -> dict[str, Any]:
    """Write the whole model; matrices in float16 if `half`, else all in float32.

    Args:
        template: the chat template that goes with it, or nothing.

    Returns:
        the facts of `_gguf_vocabulary.add`.

    Raises:
        TrimtuneError: as `layout`, and a tensor that has no place in such a file.
    """
    import gguf
    import numpy as np

    found = layout(model)
    writer = gguf.GGUFWriter(path, found.architecture)
    for key, value in found.sizes.items():
        (writer.add_float32 if isinstance(value, float) else writer.add_uint32)(f"{found.architecture}.{key}", value)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    facts = _gguf_vocabulary.add(writer, tokenizer, model.config.vocab_size, template)
    for name, tensor in tensors(model, found):
        whole = tensor.ndim == 1 or name.startswith(_WHOLE)
        writer.add_tensor(name, tensor.astype(np.float16 if half and not whole else np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return facts


def tensors(model: Any, found: Layout) -> Iterator[tuple[str, np.ndarray]]:
    """Names and float32 values as llama.cpp takes them.

    Raises:
        TrimtuneError: a tensor that has no place there.
    """
    config, tied = model.config, model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, tensor in model.state_dict().items():
        if tied and name.startswith("lm_head."):
            continue
        block = _BLOCK.fullmatch(name)
        stem, _, kind = (block[2] if block else name).rpartition(".")
        if stem not in found.names:
            raise TrimtuneError(f"gguf_llamacpp: the model has a tensor {name}.",
                                f"A GGUF file of a {config.model_type} has no place for it.", "Use torch_eager for it.")
        target = found.names[stem]
        if found.architecture == "llama" and target in ("attn_q", "attn_k"):
            tensor = neighbors(tensor, config.num_attention_heads if target == "attn_q" else config.num_key_value_heads)
        if config.model_type == "gpt2" and block and tensor.ndim == 2:
            tensor = tensor.t()
        yield f"blk.{block[1]}.{target}.{kind}" if block else f"{target}.{kind}", tensor.float().contiguous().numpy()
    factors = _factors(model) if config.model_type != "gpt2" else None
    if factors is not None:
        yield "rope_freqs.weight", factors


def neighbors(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows (or biases) of each head, [heads · D, …], so that row i + D/2 comes to stand behind row i."""
    return weight.unflatten(0, (heads, 2, -1)).transpose(1, 2).flatten(0, 2)


def _llama_like(model: Any) -> Layout:
    config, kind = model.config, model.config.model_type
    rope, rotary, architecture = config.rope_parameters, model.model.rotary_emb, {"mistral": "llama"}.get(kind, kind)
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    window = getattr(config, "sliding_window", None)
    allowed = _ROPES if architecture == "llama" else _ROPES[:1]
    _refuse(kind, hidden_act=config.hidden_act in _SILUS, sliding_window=not window or window >= config.max_position_embeddings,
            rope_type=rope.get("rope_type", "default") in allowed and rotary.attention_scaling == 1,
            partial_rotary_factor=2 * rotary.inv_freq.numel() == width)
    return Layout(architecture, {
        "vocab_size": config.vocab_size, "context_length": config.max_position_embeddings, "embedding_length": config.hidden_size,
        "block_count": config.num_hidden_layers, "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads, "attention.head_count_kv": config.num_key_value_heads,
        "attention.key_length": width, "attention.value_length": width, "rope.dimension_count": width,
        "attention.layer_norm_rms_epsilon": float(config.rms_norm_eps), "rope.freq_base": float(rope["rope_theta"])}, _LLAMA)


def _gpt2_like(model: Any) -> Layout:
    config = model.config
    _refuse("gpt2", activation_function=config.activation_function in _GELUS, scale_attn_weights=config.scale_attn_weights,
            scale_attn_by_inverse_layer_idx=not config.scale_attn_by_inverse_layer_idx,
            add_cross_attention=not config.add_cross_attention)
    width = config.n_embd // config.n_head
    return Layout("gpt2", {
        "vocab_size": config.vocab_size, "context_length": config.n_positions, "embedding_length": config.n_embd,
        "block_count": config.n_layer, "feed_forward_length": config.n_inner or 4 * config.n_embd,
        "attention.head_count": config.n_head, "attention.key_length": width, "attention.value_length": width,
        "attention.layer_norm_epsilon": float(config.layer_norm_epsilon)}, _GPT2)


def _refuse(kind: str, **fine: bool) -> None:
    """Raises TrimtuneError: a setting of the model's config that isn't fine."""
    for name, good in fine.items():
        if not good:
            raise TrimtuneError(f"gguf_llamacpp: the config of this {kind} has its own {name}.",
                                f"llama.cpp runs a {kind} with the usual one only.", "Use torch_eager for it.")


def _factors(model: Any) -> np.ndarray | None:
    """What divides each rotary frequency, [D/2]; None where they are the plain ones."""
    import torch

    found = model.model.rotary_emb.inv_freq.float()
    steps = torch.arange(len(found), dtype=torch.float64) / len(found)
    factors = ((model.config.rope_parameters["rope_theta"] ** -steps) / found).float()
    return None if torch.allclose(factors, torch.ones_like(factors), rtol=1e-5) else factors.numpy()
