"""Decoding with a cache is what the model says without one: every method, two architectures, any batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.conftest import Decoders, Folders
from tests.engines.language_models import BASES, CONFIGS, KINDS, NEW, POSITIONS, PROMPTS, VOCABULARY, alone
from tests.study.faults import fault

from trimtune.engines import _decoding
from trimtune.engines._decoding import Answer, generate, padded, stream
from trimtune.engines._torch_decoder import TorchDecoder
from trimtune.errors import StepFailed
from trimtune.tasks import causal_lm

WAYS = [*((kind, True) for kind in KINDS), ("lora", False), ("ia3", False)]
"""a method, and whether its adapter is merged where that is possible"""


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("kind", "merge"), WAYS)
def test_the_cache_changes_no_logit(base: str, kind: str, merge: bool, decoders: Decoders) -> None:
    """A left-padded batch on a cache, against each row alone in one pass; one row alone on a cache, against the same."""
    decoder, draw = decoders(base, kind, merge), np.random.default_rng(0)
    rows = [[*prompt, *draw.integers(0, VOCABULARY, 6).tolist()] for prompt in PROMPTS]
    for chosen in ([0, 1, 2, 3], [2], [1]):
        found = [decoder.begin(*padded([PROMPTS[row] for row in chosen], left=True))]
        found += [decoder.step(np.array([rows[row][len(PROMPTS[row]) + step] for row in chosen])) for step in range(6)]
        for place, row in enumerate(chosen):
            wanted = alone(decoder, rows[row])[len(PROMPTS[row]) - 1:]
            np.testing.assert_allclose(np.stack(found)[:, place], wanted, atol=1e-4, rtol=0)
    batch = decoder.logits(*padded(rows, left=False))
    assert batch.dtype == found[0].dtype == np.float32
    for row, tokens in enumerate(rows):
        np.testing.assert_allclose(batch[row, :len(tokens)], alone(decoder, tokens), atol=1e-4, rtol=0)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_is_felt(base: str, kind: str, decoders: Decoders) -> None:
    """Or the comparisons of this file could not see an adapter that is dropped."""
    tuned, plain = (decoders(base, name).begin(*padded(PROMPTS, left=True)) for name in (kind, "base"))
    assert (np.abs(tuned - plain).max(1) > 0.1).all()


@pytest.mark.slow
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize(("kind", "merge"), WAYS)
def test_an_answer_is_the_same_in_a_batch_alone_without_cache_and_from_transformers(base: str, kind: str, merge: bool,
                                                                                  decoders: Decoders) -> None:
    decoder = decoders(base, kind, merge)
    answers = generate(decoder, PROMPTS, (), NEW)
    assert {len(answer.tokens) for answer in answers} == {NEW}
    assert answers == generate(decoder, PROMPTS, (), NEW, cached=False)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        assert [answer] == generate(decoder, [prompt], (), NEW)
        assert answer.tokens == list(stream(decoder, prompt, (), NEW))
        assert answer.tokens == of_transformers(decoder._module, prompt)


def of_transformers(module: Any, prompt: list[int]) -> list[int]:
    """What `generate` of transformers, through peft where there is an adapter, answers to one prompt."""
    ids = torch.tensor([prompt])
    out = module.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=NEW,
                          min_new_tokens=NEW, eos_token_id=-1, pad_token_id=0)
    return out[0].tolist()[-NEW:]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("kind", ["full", "prefix", "prompt"])
def test_each_row_ends_by_itself(kind: str, cached: bool, decoders: Decoders) -> None:
    decoder = decoders("llama", kind)
    whole = [answer.tokens for answer in generate(decoder, PROMPTS, (), NEW)]
    for end in {whole[0][3], whole[2][0], whole[3][-1]}:
        wanted = [Answer(row[:row.index(end)], True) if end in row else Answer(row, False) for row in whole]
        assert generate(decoder, PROMPTS, [end, 500], NEW, cached) == wanted
        assert any(answer.ended for answer in wanted)
        assert list(stream(decoder, PROMPTS[0], [end], NEW)) == wanted[0].tokens


def test_the_loop_stops_with_the_last_row(decoders: Decoders) -> None:
    decoder = decoders("llama", "full")
    first = {answer.tokens[0] for answer in generate(decoder, PROMPTS, (), 1)}
    assert generate(decoder, PROMPTS, first, NEW) == [Answer([], True)] * len(PROMPTS)
    prompts = decoder.cache_bytes()
    assert prompts == 2 * 5 * 4 * len(PROMPTS) * (4 * 8) * len(PROMPTS[2]), "keys and values, layers, bytes, rows, width, tokens"
    generate(decoder, PROMPTS, (), 3)
    assert decoder.cache_bytes() == prompts // len(PROMPTS[2]) * (len(PROMPTS[2]) + 2), "the last token is not computed on"
    assert generate(decoder, PROMPTS, (), 0) == [Answer([], False)] * len(PROMPTS)
    assert generate(decoder, [], (), 3) == []


@pytest.mark.parametrize("kind", ["full", "prefix", "prompt"])
def test_a_row_ends_where_its_context_is_full(kind: str, decoders: Decoders) -> None:
    decoder = decoders("gpt2", kind)
    assert decoder.context == POSITIONS - CONFIGS.get(kind, {}).get("virtual_tokens", 0)
    long, short = [5] * (decoder.context - 2), [7, 8]
    answers = generate(decoder, [long, short], (), 2 * POSITIONS)
    assert [len(answer.tokens) for answer in answers] == [2, decoder.context - 2]
    assert answers == [*generate(decoder, [long], (), 99), *generate(decoder, [short], (), 99)]
    assert answers == generate(decoder, [long, short], (), 99, cached=False)
    fault(lambda: generate(decoder, [short, [5] * decoder.context], (), 1), f"Prompt 1 has {decoder.context} tokens", "fewer")
    fault(lambda: generate(decoder, [short, []], (), 1), "Prompt 1 has no token")


def test_logits_that_are_no_numbers_are_refused(folders: Folders) -> None:
    module: Any = causal_lm.load_model(folders("gpt2", "full"))
    module.transformer.ln_f.weight.data[0] = torch.nan
    decoder = TorchDecoder(module)
    for cached in (True, False):
        with pytest.raises(StepFailed, match="not finite"):
            generate(decoder, PROMPTS, (), 2, cached)
    with pytest.raises(StepFailed, match="differently"):
        _decoding.check(decoder, decoder, VOCABULARY, 1e-3, "mine")


class Dropped(TorchDecoder):
    """Forgets the virtual tokens where it decodes."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__(module)
        self.virtual = 0


class Unmasked(TorchDecoder):
    """Takes padding for tokens."""

    def begin(self, ids_BT: np.ndarray, mask_BT: np.ndarray) -> Any:
        return super().begin(ids_BT, np.ones_like(mask_BT))


@pytest.mark.parametrize(("fault_", "kinds"), [(Dropped, ("prefix", "prompt", "p_tuning")),
                                              (Unmasked, ("lora", "prefix", "prompt"))])
@pytest.mark.parametrize("base", BASES)
def test_the_check_of_an_export_sees_what_it_should(base: str, fault_: Any, kinds: tuple[str, ...], decoders: Decoders) -> None:
    for kind in kinds:
        right = decoders(base, kind)
        assert _decoding.check(right, right, VOCABULARY, 1e-4, "mine") <= 1e-4
        with pytest.raises(StepFailed, match=r"mine: with its cache .*\|Δlogit\| .*allowed 0.001"):
            _decoding.check(fault_(right._module), right, VOCABULARY, 1e-3, "mine")
