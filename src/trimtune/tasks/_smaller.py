"""The next smaller model off the shelf, raced beside a study's own: the same study of it, without trims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from trimtune import parts
from trimtune.errors import StepFailed, TrimtuneError
from trimtune.records import Artifact, Candidate, Study
from trimtune.store import Store
from trimtune.study import language
from trimtune.study.expand import every, expand
from trimtune.tasks._base import base_of


class Rival(NamedTuple):
    """A smaller model and its candidates; none, where the study names no such model.

    They have all methods of the study, since the pick is the best of all: one method alone would give the smaller model
    fewer chances, and its fits are the cheap ones.
    """

    study: Study
    base: Artifact
    candidates: list[Candidate]


def rival_of(study: Study, base: Artifact, labels: Sequence[str], store: Store) -> Rival:
    """What the study's `smaller` names.

    Raises:
        TrimtuneError: it isn't smaller than the study's model, can't do its task, or isn't found; a language model whose
            tokenizer is another one, since perplexities over other tokens can't be compared.
    """
    if study.smaller is None:
        return Rival(study, base, [])
    plain = study.model_copy(update={"model": study.smaller, "smaller": None, "trim": ((),), "auto": None})
    found = _found(plain, study, labels, store)
    own, other = (int(each.facts["parameters"]) for each in (base, found))
    if other >= own:
        raise TrimtuneError(f"smaller: {study.smaller} has {other:,} parameters, the study's model {own:,}.",
                            "It must be a smaller model than the study's own.", "Name a smaller one, or remove the key.")
    module = parts.load("task", study.task)
    if module.rows is language:
        tokenizers = [module.load_tokenizer(each.folder) for each in (base, found)]
        if len({str(sorted(one.get_vocab().items())) for one in tokenizers}) > 1:
            raise TrimtuneError(f"smaller: {study.smaller} has another tokenizer than {study.model}.",
                                "Perplexities can be compared over the same tokens only.",
                                "Name a smaller model of the same family, or remove the key.")
        if not study.data.template and len({one.chat_template or "" for one in tokenizers}) > 1:
            raise TrimtuneError(f"smaller: {study.smaller} has another chat template than {study.model}.",
                                "Perplexities can be compared over the same tokens only.",
                                "Give both one template with data.template, or remove the key.")
    chains = expand(plain) or every(plain)
    return Rival(plain, found, [chain.model_copy(update={"model": study.smaller}) for chain in chains])


def _found(plain: Study, study: Study, labels: Sequence[str], store: Store) -> Artifact:
    try:
        return base_of(plain, labels, store)
    except TrimtuneError as error:
        raise TrimtuneError(f"smaller: {error.given.removeprefix('model: ')}", error.allowed, error.do) from None
    except StepFailed as failure:
        raise TrimtuneError(f"smaller: {study.smaller} can't be used for {study.task.replace('_', ' ')} ({failure.cause}).",
                            "It must be a model that can do the study's task, as the study's own.",
                            "Name another one, or remove the key.") from None
