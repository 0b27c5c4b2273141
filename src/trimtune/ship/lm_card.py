"""What a language model's card says otherwise than a classifier's: how it is asked, served and was proven."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtune.ship import adapters, lm_answers
from trimtune.ship.source import Source
from trimtune.study.turns import TEXT
from trimtune.tasks import causal_lm
from trimtune.tasks._rendering import Rendering

_USE = """\
```python
import trimtune
model = trimtune.load("bundle/")        # this folder; every file's hash is checked
model(["a prompt", "another"])[0]       # the answer's text, decoded greedily{turns}
```

Or, without code: `trimtune predict bundle/ "a prompt"`, `trimtune predict bundle/ --file prompts.jsonl -o answers.jsonl`, or a
talk: `trimtune chat bundle/`."""
_PEFT = """\
```python
{imports}from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("bundle/model")
{template}model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "bundle/adapter")
{example}
```"""


def what(source: Source) -> str:
    """The first words of the card."""
    kind = {"text": "goes on with texts", "pairs": "answers prompts", "chat": "answers in conversations"}
    return f"A language model that {kind[source.result.data.kind]}"


def use(source: Source, manifest: dict[str, Any]) -> str:
    """How the bundle is asked, with trimtune and without."""
    turns = '\nmodel([[{"role": "user", "content": "a prompt"}]])' if source.result.data.kind == "chat" else ""
    base, said = adapters.base_name(source.result.study.model), [_USE.format(turns=turns), asking(source)]
    if not manifest["adapter"]:
        more = "Without trimtune: `trimtune ship RUN -o FOLDER --format merged` writes a folder for transformers and vLLM."
        return "\n\n".join([*said, more])
    own = bool(lm_answers.read(source.tuned.folder)["template"])
    said += ["With peft and transformers alone, `adapter/` on the base model: the tuned model, before any trim.", _PEFT.format(
        imports="import json\n" * own, base=base,
        example=causal_lm.example(source.tuned.folder, source.result.study.fit.max_length),
        template='tokenizer.chat_template = json.load(open("bundle/model/rendering.json"))["template"]\n' * own)]
    return "\n\n".join([*said, served(source.tuned.folder / causal_lm.ADAPTER, base, source.result.study.name, "bundle/adapter")])


def asking(source: Source) -> str:
    """In which words a prompt becomes tokens, as it did in training."""
    rendering = _rendering(source)
    if rendering.kind == TEXT:
        return "It goes on with the text that is given; a text ends with the tokenizer's end token."
    if rendering.template:
        return (f"Prompts go through the chat template {rendering.facts()['template']} (the first digits of its sha256), as in "
                "training.")
    return "A prompt is followed by a line break, then by its answer, as in training; there is no chat template."


def served(adapter: Path | None, base: str, name: str, where: str) -> str:
    """How vLLM serves an adapter beside its base, or a merged folder (`adapter` is None); or why it doesn't."""
    if adapter is None:
        return f"With vLLM: `vllm serve {where}`. (Written after its documentation; not run here.)"
    config = adapters.settings(adapter)
    lacking = adapters.vllm_lacks(config)
    if lacking:
        return f"vLLM can't serve this adapter: {lacking}."
    return (f"With vLLM: `{adapters.vllm_command(base, name, where, config)}`. (The adapter's settings have what vLLM reads; the "
            "command was not run here.)")


def parity(hops: list[dict[str, Any]]) -> str:
    """The gate's figures."""
    lines = [("Over the learned tokens of validation rows the answers were followed from the fit to these files, and those of "
              "test rows from the run's records; shipping stops where they change more than allowed."), "",
             "| hop | rows | tokens | perplexity | relative difference | allowed | same next token (clear) | max Δlogit |",
             "|---|---:|---:|---|---:|---:|---:|---:|"]
    for hop in hops:
        same = "" if hop["agreement"] is None else f"{hop['agreement']:.2%} ({hop['clear_agreement']:.2%})"
        difference = "" if hop["max_difference"] is None else f"{hop['max_difference']:.2g}"
        lines.append(f"| {hop['name']} | {hop['rows']} | {hop['tokens']} | {hop['perplexity']:.5g} → "
                     f"{hop['perplexity_after']:.5g} | {hop['relative']:.2g} | {hop['allowed_relative']:g} | {same} | "
                     f"{difference} |")
    return "\n".join(lines)


def data(source: Source) -> str:
    """Which columns the rows came from."""
    facts = source.result.data
    return f"Rows are {facts.kind}, read from the column{'s' if facts.label else ''} `{facts.text}`" + (
        f" and `{facts.label}`." if facts.label else ".")


def limits(manifest: dict[str, Any]) -> list[str]:
    """What not to expect."""
    return [f"- It was tuned on rows of at most {manifest['max_length']} tokens.",
            "- It answers whatever it is asked, true or not; perplexity and BLEU say nothing about truth.",
            "- The readings hold for rows like the test rows and for a machine like the one above."]


def _rendering(source: Source) -> Rendering:
    folder = source.tuned.folder
    return causal_lm.rendered(causal_lm.load_tokenizer(folder), **lm_answers.read(folder))
