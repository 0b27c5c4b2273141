"""TF-IDF + logistic regression: weighted counts of words and character n-grams, and one linear layer over them.

Use it when it ties a tuned network: it fits in seconds, answers in microseconds and needs no accelerator. Not when the
same thing is said in many words that the training rows don't share.

    x = [words of 1-2; characters of 3-5 within words],  x_j = (1 + log tf_j) · idf_j, each half of length 1
    ŷ = argmax W x + b,  least Σ cross-entropy + |W|² / 2C;  C of 1, 10, 100: the most right on the validation rows

Source: Wang & Manning 2012 (ACL, P12-2018), for how far n-grams go; scikit-learn's L-BFGS, fitted on the training rows
alone. The most frequent n-grams are kept, 1,000,000 / classes of each half, which bounds its memory.
"""

from __future__ import annotations

from pathlib import Path

from trimtune.study.data import Split
from trimtune.tune.baselines._race import Rule, share

TASKS = ("text_classification",)
_STRENGTHS = (1.0, 10.0, 100.0)
_MOST_WEIGHTS = 1_000_000


def fit(train: Split, validation: Split, classes: int, base: Path, task: str, max_length: int) -> Rule:
    """The best of three strengths on the validation rows, the stronger regularized of equals."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_union

    most = max(1000, _MOST_WEIGHTS // classes)
    grams = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=most),
                       TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, max_features=most))
    x, asked = grams.fit_transform(train.texts), grams.transform(validation.texts)
    models = [LogisticRegression(C=strength, max_iter=200).fit(x, train.labels) for strength in _STRENGTHS]
    scores = [share(model.predict(asked).tolist(), validation) for model in models]
    best = scores.index(max(scores))
    model, words = models[best], grams.get_feature_names_out()
    size_bytes = 4 * (model.coef_.size + model.intercept_.size + len(words)) + sum(len(word.encode()) for word in words)
    return Rule(lambda texts: model.predict(grams.transform(texts)).tolist(), size_bytes, f"C = {_STRENGTHS[best]:g}")
