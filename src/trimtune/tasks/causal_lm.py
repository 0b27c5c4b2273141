"""Causal language models: the next token of a text, of a prompt's completion, or of an assistant's answers.

Loss: mean over the learned tokens of a batch of -log softmax(logits_BTV)[next token]. Answers are learned, with their ends; a
study says `loss: all` under `data` to learn prompts too, and `trimtune show-batch` shows it. docs/language-models.md has the
kinds of rows and the keys of `data`. Fits are chosen by the
mean log-likelihood of the learned tokens of the validation rows: -log(perplexity), in nats per token.

A *model folder* is what every step after the base hands on: `config.json`, `model.safetensors`, tokenizer files, and, if
the method left something beside the weights, `adapter/` in PEFT's own format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtune.errors import TrimtuneError
from trimtune.records import DataSpec, Study
from trimtune.study import language
from trimtune.study.text_file import lines, shown
from trimtune.study.turns import ASSISTANT, TEXT, USER, Turn
from trimtune.tasks import _chunked_teacher, _pretrained
from trimtune.tasks._chunked_loss import IGNORED, chunked
from trimtune.tasks._encoded import encoded
from trimtune.tasks._inputs import Inputs, reading_in
from trimtune.tasks._perplexity import perplexity
from trimtune.tasks._rendering import Rendering, end_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

rows = language
"""the module that reads the rows of this task"""
ADAPTER = _pretrained.ADAPTER
PEFT_TASK = "CAUSAL_LM"
AUTO_CLASS = "AutoModelForCausalLM"
METRIC = "perplexity"
"""what fits are chosen by, on validation rows: of the learned tokens"""
PACKS = True
"""rows may stand one behind another in a line: a row's first token is never learned, so no row answers for its neighbor"""
_DECODER = "Choose a decoder: a hub id such as `openai-community/gpt2`, or a folder that holds one."
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")


def describe_base(folder: Path, labels: Sequence[str]) -> None:
    """Refuse a base whose tokenizer has tokens that its embedding doesn't know."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    check_vocabulary(load_tokenizer(folder), config["vocab_size"])


def complete(folder: Path) -> list[str]:
    """The names of weights that the checkpoint lacks and that were drawn for it: none, such a checkpoint is refused.

    Raises:
        TrimtuneError: weights are missing, or a token sees those after it (an encoder such as BERT).
    """
    import torch
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", use_safetensors=True, trust_remote_code=False,
                                                    output_loading_info=True)
    lacking = sorted(found["missing_keys"])
    if lacking:
        raise TrimtuneError(f"model: {type(model).__name__} lacks {len(lacking)} weights of a language model, such as "
                            f"{lacking[0]}.", "Allowed: a causal language model (GPT-like, Llama-like), with all its weights; "
                            "`minilm` is an encoder.", _DECODER)
    tokens = torch.arange(1, 9).repeat(2, 1) % model.config.vocab_size
    tokens[1, -1] += 1
    with torch.no_grad():
        one, other = model.eval()(tokens).logits[:, :-1]
    if not torch.allclose(one, other, atol=1e-4):
        raise TrimtuneError(f"model: in {type(model).__name__} a token sees those that come after it.",
                            "Allowed: a causal language model (GPT-like, Llama-like).",
                            _DECODER)
    return []


def load_base(folder: Path, attention: str = "eager") -> PreTrainedModel:
    """The model of a model folder without its adapter, in float32."""
    from transformers import AutoModelForCausalLM

    return _pretrained.load_base(AutoModelForCausalLM, folder, attention, "causal language modelling",
                                 "Allowed: an architecture with a causal language model in transformers (GPT-like, Llama-like).",
                                 _DECODER)


def load_model(folder: Path, attention: str = "sdpa", merge: bool = True) -> torch.nn.Module:
    """The whole model of a model folder: float32, eval mode, `model(input_ids, attention_mask).logits` is [B, T, V].

    `merge` folds an adapter into the weights where it can be folded (LoRA, IA3); prefixes and prompts stay beside them.
    """
    return _pretrained.with_adapter(load_base(folder, attention), folder, merge)


def example(folder: Path, max_length: int) -> str:
    """How someone with transformers alone asks the `model` of a tuned folder with its `tokenizer`, as rows were in training."""
    rendering = rendered(load_tokenizer(folder), **reading_in(folder))
    stops = sorted(ends(rendering)) if rendering.kind != TEXT else []
    inputs = ('inputs = tokenizer.apply_chat_template([{"role": "user", "content": "a prompt"}], add_generation_prompt=True,\n'
              '                                       return_dict=True, return_tensors="pt")' if rendering.template else
              'inputs = tokenizer("how a text begins", return_tensors="pt")' if rendering.kind == TEXT else
              'inputs = tokenizer("a prompt\\n", return_tensors="pt")')
    stop = f", eos_token_id={stops}" if len(stops) > 1 else ""
    return (f"{inputs}\nout = model.eval().generate(**inputs, max_new_tokens=100, do_sample=False{stop})\n"
            'answer = tokenizer.decode(out[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)')


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The model's own tokenizer; rows are padded on the right, by place and not by a token.

    Raises:
        TrimtuneError: it has none, or one that can't be read.
    """
    from transformers import AutoTokenizer

    try:
        if not any((folder / name).is_file() for name in _TOKENIZERS):  # transformers would make an empty one up
            raise OSError("no " + ", ".join(_TOKENIZERS))
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise TrimtuneError(f"model: {folder} has no tokenizer that can be read ({str(error).splitlines()[0]}).",
                            "Its folder must hold tokenizer.json and tokenizer_config.json.",
                            "Save it there with tokenizer.save_pretrained(folder).") from None
    return tokenizer


def reading(study: Study, kind: str) -> dict[str, Any]:
    """What of the study decides how rows become tokens, beside `max_length`, for the keys of steps.

    Args:
        kind: of the rows: text, pairs or chat.
    """
    return {"kind": kind, "template": _template(study.data), "learned": study.data.loss}


def inputs(tokenizer: PreTrainedTokenizerBase, split: language.Split, max_length: int, name: str = "rows", *, kind: str,
           template: str, learned: str) -> Inputs:
    """The rows' tokens; a row's target is each token's own id where it is learned, -100 elsewhere and at the first."""
    found = encoded(rendered(tokenizer, kind, template, learned), split, max_length, name)
    targets = [[IGNORED, *(token if mark else IGNORED for token, mark in zip(ids[1:], marks[1:], strict=True))]
               for ids, marks in zip(found.ids, found.learned, strict=True)]
    counts = [sum(label != IGNORED for label in row) for row in targets]
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end_of(tokenizer)
    return Inputs(found.ids, targets, counts, pad_id, found.notes, found.numbers)


def answered(model: Any, tokens: dict[str, torch.Tensor],
             targets: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """What precedes each token that is learned: states [N, D] with the output layer's weight [V, D], or logits [N, V] and None.

    States come from a model whose output layer was `split_off`; virtual tokens before the rows are left out. Beside them the
    next tokens [N].
    """
    import torch

    out = model(**tokens, use_cache=False).logits
    width = tokens["input_ids"].shape[1]
    labels = torch.full((len(targets), width), IGNORED)
    for row, target in enumerate(targets):
        labels[row, :len(target)] = torch.tensor(target)
    labels = labels[:, 1:].to(out.device)
    before, learned = out[:, -width:-1], labels != IGNORED
    output: Any = model.get_output_embeddings()
    return before[learned], output.weight if "forward" in vars(output) else None, labels[learned]


def split_off(model: Any) -> bool:
    """Make a float32 model hand out the states that its output layer projects, so that the loss can project them in chunks.

    False, and the model as it was, where its logits are more than that product (a bias, a cap, a scale).
    """
    import torch

    output = model.get_output_embeddings()
    if "forward" in vars(output):
        return True
    tokens = {"input_ids": torch.arange(1, 7)[None] % model.config.vocab_size}
    with torch.no_grad():
        whole = model.eval()(**tokens).logits
        output.forward = lambda states: states
        states = model(**tokens).logits
        same = states.shape[-1] == output.weight.shape[-1] and torch.allclose(states @ output.weight.t(), whole, atol=1e-4)
    if not same:
        del output.forward
    return same


def loss(states_ND: torch.Tensor, weight_VD: torch.Tensor | None, labels_N: torch.Tensor) -> torch.Tensor:
    """Mean over the learned tokens of -log p(token), in float32; of logits [N, V] where there is no weight."""
    import torch

    if weight_VD is None:
        return torch.nn.functional.cross_entropy(states_ND.float(), labels_N)
    return chunked(states_ND, weight_VD, labels_N)


taught = _chunked_teacher.loss_of
"""the loss of a fit with a teacher"""


def score(states_ND: torch.Tensor, weight_VD: torch.Tensor | None, labels_N: torch.Tensor) -> torch.Tensor:
    """The sum over the learned tokens of log p(token)."""
    return -loss(states_ND, weight_VD, labels_N) * len(labels_N)


def metric(score_: float) -> float:
    """A mean log-likelihood as the metric that users know: the perplexity."""
    return perplexity(-score_)


def loss_of(class_weights_: str, splits: language.Rows) -> Callable[..., torch.Tensor]:
    """The loss of a fit.

    Raises:
        TrimtuneError: class weights were asked for.
    """
    if class_weights_ != "none":
        raise TrimtuneError(f"fit.class_weights: {class_weights_} was given.", "Rows for a language model have no classes.",
                            "Leave class_weights out.")
    return loss


def rendering(tokenizer: PreTrainedTokenizerBase, spec: DataSpec, kind: str) -> Rendering:
    """How a study's rows become tokens: with its own template, else with the tokenizer's, else without one."""
    return rendered(tokenizer, kind, _template(spec), spec.loss)


def rendered(tokenizer: PreTrainedTokenizerBase, kind: str, template: str, learned: str) -> Rendering:
    """The same, of what `reading` gives."""
    return Rendering(tokenizer, kind, template or _own_template(tokenizer, kind), learned)


def ends(rendering_: Rendering) -> set[int]:
    """The tokens that end an answer: the tokenizer's end, and the one that the template writes."""
    ids, learned = replace(rendering_, loss="answers").tokens((Turn(USER, "a"), Turn(ASSISTANT, "b")))
    last = max(index for index, mark in enumerate(learned) if mark)
    own = rendering_.tokenizer.eos_token_id
    return {ids[last]} | ({own} if own is not None else set())


def _template(spec: DataSpec) -> str:
    """The text of the study's own chat template, if it gives one."""
    if not spec.template:
        return ""
    template = "".join(lines(Path(spec.template)))
    if "messages" not in template:
        raise TrimtuneError(f"data.template: {shown(Path(spec.template))} doesn't mention `messages`.",
                            "A chat template is Jinja over `messages`, each with role and content.", "Give another file.")
    return template


def _own_template(tokenizer: PreTrainedTokenizerBase, kind: str) -> str:
    own = tokenizer.chat_template
    return own if isinstance(own, str) and kind != "text" else ""


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, size: int) -> None:
    """Refuse a tokenizer with tokens that the model doesn't know.

    Args:
        size: rows of the model's token embedding.
    """
    if len(tokenizer) > size:
        raise TrimtuneError(f"model: its tokenizer has {len(tokenizer):,} tokens, its embedding {size:,} rows.",
                            "Each token needs a row.", "Use the tokenizer that the model was made with, or resize the embedding.")
