"""An answer beside its references: BLEU's statistics, ROUGE-L, and whether they are the same or end in the same number.

BLEU is sacrebleu's (Post 2018): its tokens, its counts per answer, exponential smoothing. ROUGE-L (Lin 2004, section 3.1) is the
F1 of the longest common subsequence of words, the best over the references; rouge-score gives the same figures, but importing it
loads nltk, which takes seconds in each candidate's process. rouge-score's own words are of a–z and 0–9 only, and a text in any
other script would score 0: here a word is of letters, marks and digits of any script, which for English is the same. Chinese
characters count as a word each, in both.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

_HAN = re.compile("([\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff])")
_KEPT = re.compile(r"(?<=\d)[.,](?=\d)|(?<!\w)-(?=\d)")
"""marks that belong to a number"""
_NUMBER = re.compile(r"(?:(?<!\w)-)?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?")


def bleu_tokens(references: Sequence[str]) -> str:
    """Which of sacrebleu's tokenizers fits: `13a`, or `zh` for Chinese."""
    return "zh" if any(_HAN.search(reference) for reference in references) else "13a"


def bleu_statistics(answer: str, references: Sequence[str], tokens: str = "13a") -> list[int]:
    """Length of the answer and of the reference that is nearest to it, then matching and all n-grams of 1 to 4 tokens."""
    from sacrebleu.metrics.bleu import BLEU

    found = BLEU(effective_order=True, tokenize=tokens).sentence_score(answer, list(references))
    return [found.sys_len, found.ref_len, *found.counts, *found.totals]


def bleu(sums_B10: np.ndarray) -> np.ndarray:
    """Corpus BLEU [B], 0 to 100, from statistics summed over answers; smoothed as sacrebleu does by default (`exp`).

    Only lengths of n-grams that some answer has count (sacrebleu's effective order): without it, any answers of fewer than four
    tokens, such as the right names of classes, would score 0.
    """
    length_B, reference_B = sums_B10[:, 0], sums_B10[:, 1]
    right_B4, all_B4 = sums_B10[:, 2:6], sums_B10[:, 6:]
    halvings_B4 = np.cumsum(right_B4 == 0, axis=1)
    smoothed_B4 = np.where(right_B4 > 0, right_B4, 0.5**halvings_B4)
    logs_B4 = np.where(all_B4 > 0, np.log(smoothed_B4 / np.maximum(all_B4, 1)), 0.0)
    precision_B = np.exp(logs_B4.sum(axis=1) / np.maximum((all_B4 > 0).sum(axis=1), 1))
    brevity_B = np.exp(np.minimum(0, 1 - reference_B / np.maximum(length_B, 1)))
    found_B: np.ndarray = np.where(right_B4.any(axis=1), 100 * brevity_B * precision_B, 0.0)
    return found_B


def rouge_l(answer: str, references: Sequence[str]) -> float:
    """F1, 0 to 1, of the best reference."""
    said, wanted = _words(answer), [_words(reference) for reference in references]
    return max(2 * _common(said, words) / max(1, len(said) + len(words)) for words in wanted)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    """Words of the longest common subsequence."""
    lengths = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for at, beside in enumerate(other, 1):
            before, lengths[at] = lengths[at], before + 1 if word == beside else max(lengths[at], lengths[at - 1])
    return lengths[-1]


def _words(text: str) -> list[str]:
    plain = "".join(mark if unicodedata.category(mark)[0] in "LNM" else " " for mark in text.lower())
    return _HAN.sub(r" \1 ", plain).split()


def normal(text: str) -> str:
    """What is left of a text without case, punctuation and spare spaces; of one that is all punctuation, the text."""
    text = unicodedata.normalize("NFKC", text).casefold()
    kept = {match.start() for match in _KEPT.finditer(text)}
    plain = "".join(" " if unicodedata.category(mark)[0] == "P" and at not in kept else mark for at, mark in enumerate(text))
    return " ".join(plain.split()) or " ".join(text.split())


def same(answer: str, references: Sequence[str]) -> bool:
    """Whether an answer is one of the references."""
    return normal(answer) in {normal(reference) for reference in references}


def number_of(text: str) -> float | None:
    """The last number in a text, as answers to problems end in theirs; `1,200` is 1200."""
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text).replace("−", "-"))
    return float(found[-1].replace(",", "")) if found else None


def same_number(answer: str, references: Sequence[str]) -> bool | None:
    """Whether the last numbers agree; None where a reference has none."""
    wanted = [number_of(reference) for reference in references]
    return None if None in wanted else number_of(answer) in wanted
