"""Nearest answer: the answer of the training prompt that is most like the prompt, copied; nothing is generated.

It tells how far the test prompts are known already. Use it when it ties a tuned model: it answers in milliseconds and says only
what somebody wrote. Not when answers must fit a prompt's own names and numbers. It has no likelihood, so no perplexity; it is
compared by BLEU on the prompts that the models answer. Plain texts have no prompts, so it isn't in their race.

    x = [words of 1-2; characters of 2-5 within words],  x_j = (1 + log tf_j) · idf_j, each half of length 1
    answer = that of argmax_i x · x_i over the training prompts, the first of equals

Source: nearest neighbour of Salton, Wong and Yang 1975, "A vector space model for automatic indexing"; scikit-learn's TF-IDF. The
most frequent 200,000 n-grams of each half are kept, which bounds its memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trimtune.study.language import Split, prompt
from trimtune.study.turns import as_text
from trimtune.tune.baselines._race import Speaker

TASKS = ("causal_lm",)
KINDS = ("pairs", "chat")
"""of rows that it can learn from"""
_MOST = 200_000
_TOGETHER = 100
"""prompts that are compared with the training prompts at once, a dense matrix of so many rows"""


def speaker(train: Split, base: Path) -> Speaker:
    """The training prompts as vectors, beside their answers."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    known, answers = [as_text(prompt(row)) for row in train.rows], [row[-1].content for row in train.rows]
    grams = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=_MOST, token_pattern=r"\S+"),
                       TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, max_features=_MOST))
    known_ND = grams.fit_transform(known)

    def answer(prompts: Sequence[str]) -> list[str]:
        found: list[str] = []
        for start in range(0, len(prompts), _TOGETHER):
            near_BN = (grams.transform(prompts[start:start + _TOGETHER]) @ known_ND.T).toarray()
            found += [answers[int(at)] for at in near_BN.argmax(axis=1)]
        return found

    return Speaker(answer=answer, size_bytes=sum(len(text.encode()) for text in (*known, *answers)))
