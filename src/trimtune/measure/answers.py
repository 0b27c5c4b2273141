"""What the model answers to the test prompts, beside the answers that the test rows give.

Each of at most `rows` distinct prompts is answered greedily, by at most `max_new` tokens; rows with the same prompt are one
item with several references. Readings: `bleu`, corpus BLEU of sacrebleu, 0 to 100, its signature in the note; `rouge_l`, mean
F1 of the longest common subsequence with the best reference; `exact_match`, the share of answers that are a reference but
for case, punctuation and spaces; `number_match`, the share whose last number is a reference's last one, where every reference
holds a number; `ended`, the share that end by themselves; `format_valid`, where the study gives `data.format`, the share that
have this format: the whole answer matches a regular expression, or it is JSON that a schema allows. When to use: where what is
said counts, not only how likely it was. BLEU and ROUGE compare words, not truth: read some answers too. Plain texts have no
prompts, so nothing is read of them.

Intervals: shares by Wilson; BLEU and ROUGE-L by a bootstrap over prompts, from statistics per answer.

Source: Papineni et al. 2002 (BLEU), section 2; Post 2018 (sacrebleu); Lin 2004 (ROUGE), section 3.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from trimtune.engines._decoding import Answer, generate
from trimtune.measure import _text_scores
from trimtune.measure._intervals import bootstrap, wilson
from trimtune.measure._lm_subject import LMSubject, Prompt
from trimtune.records import AnswerFormat, Quantity, Reading, Study
from trimtune.study.answer_format import matcher

TASKS = ("causal_lm",)
READINGS = {
    "bleu": Quantity("points", "higher", "BLEU",
                     "How many runs of one to four words the answers share with the references, 0 to 100."),
    "rouge_l": Quantity("fraction", "higher", "ROUGE-L",
                        "Words that stand in the same order in an answer and in its best reference."),
    "exact_match": Quantity("fraction", "higher", "Exact match",
                            "Share of answers that are a reference, but for case, punctuation and spaces."),
    "number_match": Quantity("fraction", "higher", "Number match",
                             "Share of answers whose last number is the reference's last one."),
    "ended": Quantity("fraction", "higher", "Ended", "Share of answers that end by themselves before they are cut."),
    "format_valid": Quantity("fraction", "higher", "Format valid",
                             "Share of answers that have the format that the study asks for.")}
NEEDS = {"format_valid": "format"}
"""reading → the key of a study's `data` without which it isn't read"""
ROUNDS = 1
_SHOWN = 5
"""answers that are kept as they are"""


class Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")
    rows: int = Field(100, ge=1, description="distinct prompts answered, drawn by the seed")
    max_new: int = Field(100, ge=1, description="tokens after which an answer is cut")
    batch_size: int = Field(16, ge=1, description="prompts answered together")
    seed: int = Field(0, description="of the prompts drawn, and of the bootstrap")
    format: AnswerFormat | None = Field(None, description="what an answer must look like; a study says it as data.format")


def settings(study: Study) -> dict[str, Any]:
    """What of the study decides the config."""
    return {"format": study.data.format.model_dump(exclude_none=True)} if study.data.format else {}


def sample(subject: LMSubject, config: Config) -> dict[str, Any]:
    """Of each prompt: BLEU's statistics, ROUGE-L, and what is the same; of the first few, the answers. Or `lacking`: why none."""
    if not subject.prompts:
        return {"lacking": "no prompt is short enough" if subject.too_long else "plain texts have no prompts to answer"}
    prompts, too_long = drawn(subject, config)
    if not prompts:
        return {"lacking": "no prompt that was drawn is short enough"}
    found = _answered(subject, prompts, config)
    said = [subject.tokenizer.decode(answer.tokens, skip_special_tokens=True).strip() for answer in found]
    return as_sample(prompts, said, config, too_long, [answer.ended for answer in found])


def as_sample(prompts: list[Prompt], said: list[str], config: Config, too_long: int,
              ended: list[bool] | None = None) -> dict[str, Any]:
    """The sample that these answers are; without `ended`, of a rule whose answers have no other end."""
    found = scored(said, [prompt.references for prompt in prompts], config.format) | ({"ended": ended} if ended else {})
    shown = list(zip(prompts, said, ended or [True] * len(said), strict=True))[:_SHOWN]
    return {**found, "too_long": too_long,
            "examples": [{"prompt": prompt.text, "reference": prompt.references[0], "answer": text, "ended": end}
                         for prompt, text, end in shown]}


def drawn(subject: LMSubject, config: Config) -> tuple[list[Prompt], int]:
    """The prompts that every candidate is asked, in the file's order, and how many more are too long for this one."""
    order = np.random.default_rng(config.seed).permutation(len(subject.prompts) + subject.too_long)[:config.rows]
    chosen = set(order.tolist())
    asked = [prompt for prompt in subject.prompts if prompt.at in chosen]
    return asked, len(chosen) - len(asked)


def _answered(subject: LMSubject, prompts: list[Prompt], config: Config) -> list[Answer]:
    """In the prompts' order; prompts of like length are answered together."""
    found: dict[int, Answer] = {}
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].tokens))
    for start in range(0, len(order), config.batch_size):
        batch = order[start:start + config.batch_size]
        tokens = [prompts[index].tokens for index in batch]
        answers = generate(subject.decoder, tokens, subject.ends, config.max_new)
        found.update(zip(batch, answers, strict=True))
    return [found[index] for index in range(len(prompts))]


def scored(answers: list[str], references: list[list[str]], form: AnswerFormat | None = None) -> dict[str, Any]:
    """Each answer beside its references, as plain JSON."""
    tokens = _text_scores.bleu_tokens([reference for several in references for reference in several])
    pairs = [(answer, list(dict.fromkeys(several))) for answer, several in zip(answers, references, strict=True)]
    valid = matcher(form) if form else None
    checked = {"valid": [valid(answer) for answer in answers],
               "valid_references": sum(valid(several[0].strip()) for several in references)} if valid else {}
    return {"bleu": [_text_scores.bleu_statistics(*pair, tokens) for pair in pairs], "bleu_tokens": tokens,
            "rouge_l": [_text_scores.rouge_l(*pair) for pair in pairs], "exact": [_text_scores.same(*pair) for pair in pairs],
            "number": [_text_scores.same_number(*pair) for pair in pairs], **checked}


def summarize(samples: list[dict[str, Any]], config: Config) -> dict[str, Reading]:
    """The readings; `n` counts prompts. Those that can't be read have no value, and say why."""
    taken = samples[0]
    if "lacking" in taken:
        return {name: _reading(name, None, 0, note=taken["lacking"]) for name in READINGS if name not in NEEDS or config.format}
    bleu_N10, rouge_N1 = np.array(taken["bleu"], dtype=float), np.array(taken["rouge_l"])[:, None]
    n, how = len(bleu_N10), "bootstrap over prompts 95%"
    note = f"{taken['too_long']} of {n + taken['too_long']} prompts are too long and left out" if taken["too_long"] else ""
    signature = f"sacrebleu eff:yes|tok:{taken['bleu_tokens']}|smooth:exp|version:{version('sacrebleu')}"
    found = [
        _reading("bleu", float(_text_scores.bleu(bleu_N10.sum(axis=0)[None])[0]), n,
                 bootstrap(bleu_N10, _text_scores.bleu, config.seed), how, "; ".join(filter(None, (signature, note)))),
        _reading("rouge_l", float(rouge_N1.mean()), n, bootstrap(rouge_N1, lambda sums_B1: sums_B1[:, 0] / n, config.seed), how,
                 note),
        _share("exact_match", taken["exact"], note),
        _share("number_match", taken["number"], note) if None not in taken["number"] else
        _reading("number_match", None, 0, note="not every reference holds a number"),
        *([_share("ended", taken["ended"], note)] if "ended" in taken else [])]
    if "valid" in taken:
        own = n - taken["valid_references"]
        lacking = f"{own} of {n} references don't have the format themselves" if own else ""
        found.append(_share("format_valid", taken["valid"], "; ".join(filter(None, (note, lacking)))))
    return {reading.name: reading for reading in found}


def by_answer(samples: list[dict[str, Any]]) -> list[list[int]]:
    """BLEU's statistics of each answer, for comparing candidates with rules that have no likelihood; none without prompts."""
    return list(samples[0].get("bleu", []))


def examples(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some answers as they are: `prompt`, first `reference`, `answer`, and whether it `ended` by itself."""
    return list(samples[0].get("examples", []))


def _share(name: str, hits: list[bool], note: str) -> Reading:
    return _reading(name, sum(hits) / len(hits), len(hits), wilson(sum(hits), len(hits)), "Wilson 95%", note)


def _reading(name: str, value: float | None, n: int, ends: tuple[float | None, float | None] = (None, None), interval: str = "",
             note: str = "") -> Reading:
    unit, better, *_ = READINGS[name]
    return Reading(name=name, value=value, unit=unit, better=better, n=n, low=ends[0], high=ends[1], interval=interval, note=note)
