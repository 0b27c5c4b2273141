"""Cut the stream of an encoder to some of its channels (see _stream.py for what it is)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from trimtune.tasks import _shapes
from trimtune.trim import _importance, _virtual_tokens, prune_heads
from trimtune.trim._model_folder import base_of, plain_state
from trimtune.trim._stream import Stream, refused
from trimtune.tune.layers import kept_if_equal, sample

if TYPE_CHECKING:
    import torch


def cut(module: torch.nn.Module, stream: Stream, kept: torch.Tensor, kept_tail: torch.Tensor) -> None:
    """Cut an encoder to these channels, in place, and mark its config.

    The reference is the whole model whose norms see the kept channels alone: it answers a few tokens first.

    Args:
        kept: channels of the stream in ascending order, a multiple of a head's.
        kept_tail: outputs of the tail, as many; any where there is none.

    Raises:
        TrimtuneError: the cut model answers otherwise, or the one that is read back from its config and tensors does.
    """
    import torch

    base, channels = base_of(module.eval()), prune_heads.head_size(base_of(module))
    hooks = _narrowed(base, stream, kept, kept_tail)

    def change() -> None:
        for hook in hooks:
            hook.remove()
        for name in stream.norms:
            _keep_normed(base.get_submodule(name), kept)
        for name in stream.tables:
            _importance.keep_columns(base.get_submodule(name), kept)
        for name in stream.readers:
            _importance.keep_inputs(base.get_submodule(name), kept)
        for name in stream.writers:
            _importance.keep_outputs(base.get_submodule(name), kept)
        for name in stream.tail:
            _importance.keep_outputs(base.get_submodule(name), kept_tail)
        for name in stream.last:
            _importance.keep_inputs(base.get_submodule(name), kept_tail)
        _virtual_tokens.keep_channels(module, kept)

    width = base.config.hidden_size
    if not kept_if_equal(module, change, lambda: None):
        raise refused(base, "answers otherwise, or not at all, with fewer channels")
    for name in ("hidden_size", "embedding_size"):
        if getattr(base.config, name, None) == width and (name == "hidden_size" or not stream.entries):
            setattr(base.config, name, len(kept))
    base.config.num_attention_heads = len(kept) // channels  # of d channels each, which is what the model's code counts by
    _shapes.mark(base.config)
    with torch.no_grad():
        if not _reads_back(module):
            raise refused(base, f"is another one when it is read back with {len(kept)} channels",
                           "Try another ratio: embeddings as narrow as the stream are read without a projection.")


def _narrowed(base: Any, stream: Stream, kept: torch.Tensor, kept_tail: torch.Tensor) -> list[Any]:
    """Hooks under which the whole model answers as the cut one will."""
    import torch

    def only(stay: torch.Tensor, _: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(output).index_copy(-1, stay, output[..., stay])

    def normed(norm: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        few = torch.nn.functional.layer_norm(inputs[0][..., kept], (len(kept),), norm.weight[kept], norm.bias[kept], norm.eps)
        return torch.zeros_like(output).index_copy(-1, kept, few)

    return [*(base.get_submodule(name).register_forward_hook(normed) for name in stream.norms),
            *(base.get_submodule(name).register_forward_hook(partial(only, kept)) for name in stream.entries),
            *(base.get_submodule(name).register_forward_hook(partial(only, kept_tail)) for name in stream.tail)]


def _reads_back(module: torch.nn.Module) -> bool:
    """Whether config and tensors give the same model again, tried on a few tokens."""
    import torch
    from transformers import AutoModelForSequenceClassification

    base, state = base_of(module), plain_state(module)
    try:
        again = _shapes.empty(AutoModelForSequenceClassification, base.config,
                              {name: tuple(tensor.shape) for name, tensor in state.items()}, "eager")
        again.load_state_dict(state, strict=False, assign=True)
        return torch.allclose(again.eval()(**sample(base)).logits, base(**sample(base)).logits, atol=1e-4)
    except (RuntimeError, ValueError):
        return False


def _keep_normed(norm: Any, kept: torch.Tensor) -> None:
    import torch

    norm.weight, norm.bias = (torch.nn.Parameter(one.detach()[kept].clone(), requires_grad=False)
                              for one in (norm.weight, norm.bias))
    norm.normalized_shape = (len(kept),)
