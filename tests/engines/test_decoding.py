"""Decoding with a cache is what the model says without one: every method, two architectures, any batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.language_models import CONFIGS, KINDS, POSITIONS, VOCABULARY, small_gpt2, tuned_folder
from tests.study.faults import fault

from trimtune.engines import _decoding, _export, _torch_decoder, torch_eager
from trimtune.engines._decoding import Answer, generate, padded, stream
from trimtune.engines._torch_decoder import TorchDecoder
from trimtune.errors import StepFailed
from trimtune.tasks import causal_lm

BASES = ("llama", "gpt2")
WAYS = [*((kind, True) for kind in KINDS), ("lora", False), ("ia3", False)]
"""a method, and whether its adapter is merged where that is possible"""
PROMPTS = [[1, 403, 407, 261, 378], [1], [1, 410, 263, 300, 281, 30, 77, 411, 290, 265, 12], [9, 8]]
NEW = 12
Folders = Callable[[str, str], Path]
Decoders = Callable[..., TorchDecoder]


@pytest.fixture(scope="module")
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The model folder of (architecture, method); `base` is the untouched one."""

    @cache
    def make(base: str, kind: str) -> Path:
        home = tmp_path_factory.mktemp(f"{base}-{kind}")
        if kind != "base":
            return tuned_folder(make(base, "base"), kind, home)
        if base == "gpt2":
            return small_gpt2(home)
        found: Path = request.getfixturevalue("shared_data") / "models" / "stories260K"
        if not found.is_dir():
            pytest.skip(f"needs {found}")
        return found

    return make


@pytest.fixture(scope="module")
def decoders(folders: Folders) -> Decoders:
    return cache(lambda base, kind, merge=True: TorchDecoder(causal_lm.load_model(folders(base, kind), merge=merge)))


def alone(decoder: TorchDecoder, row: list[int]) -> Any:
    """Logits [T, V] of one row in one pass, without padding and without a cache."""
    return decoder.logits(*padded([row], left=False))[0]


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
        self._virtual = 0


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


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_answers_alone_and_elsewhere(base: str, kind: str, folders: Folders, decoders: Decoders,
                                                      tmp_path: Path) -> None:
    facts = torch_eager.export(tmp_path / "made", folders(base, kind), {"precision": "fp32"}, "plain", [], 32, "causal_lm")
    assert facts["difference"] <= 1e-4
    assert json.loads((tmp_path / "made" / "engine.json").read_text()) == facts
    moved = Path(shutil.move(tmp_path / "made", tmp_path / "elsewhere"))
    for path in moved.rglob("*"):
        assert path.is_dir() or str(folders(base, kind)).encode() not in path.read_bytes(), path
    assert (moved / causal_lm.ADAPTER).is_dir() == (kind in CONFIGS), "LoRA and IA3 are merged"
    decoder: Any = torch_eager.load(moved, 1)
    ids_BT, mask_BT = padded(PROMPTS, left=False)
    wanted = decoders(base, kind).logits(ids_BT, mask_BT)
    np.testing.assert_allclose(decoder.logits(ids_BT, mask_BT), wanted, atol=1e-4, rtol=0)
    assert generate(decoder, PROMPTS, (), NEW) == generate(decoders(base, kind), PROMPTS, (), NEW)
    tokenizers = [causal_lm.load_tokenizer(folder) for folder in (folders(base, kind), moved)]
    assert len({tuple(one("a b, a b. Once upon")["input_ids"]) for one in tokenizers}) == 1
    assert tokenizers[0].pad_token_id == tokenizers[1].pad_token_id


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_saved_adapter_answers_the_same_in_plain_peft(base: str, kind: str, folders: Folders, decoders: Decoders) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folders(base, "base")),
                                      str(folders(base, kind) / causal_lm.ADAPTER)).eval()
    for prompt in PROMPTS:
        with torch.no_grad():
            wanted = plain(input_ids=torch.tensor([prompt])).logits[0, -len(prompt):].numpy()
        np.testing.assert_allclose(decoders(base, kind).begin(*padded([prompt], left=True))[0], wanted[-1], atol=1e-4, rtol=0)
        np.testing.assert_allclose(alone(decoders(base, kind), prompt), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["full", "prefix", "prompt"])
@pytest.mark.parametrize("base", BASES)
def test_bf16_halves_the_weights_and_rounds_no_position(base: str, kind: str, folders: Folders, decoders: Decoders,
                                                        tmp_path: Path) -> None:
    source = folders(base, kind)
    facts = torch_eager.export(tmp_path, source, {"precision": "bf16"}, "plain", [], 32, "causal_lm")
    assert (facts["precision"], facts["milliseconds"]) == ("bf16", {})
    whole, half = ((folder / "model.safetensors").stat().st_size for folder in (source, tmp_path))
    assert half < 0.6 * whole, "a table that is also the output layer is stored once"
    decoder: Any = torch_eager.load(tmp_path, 1)
    assert {parameter.dtype for parameter in decoder._module.parameters()} == {torch.bfloat16}
    assert all(buffer.dtype == torch.float32 for buffer in decoder._module.buffers() if buffer.is_floating_point())
    found, wanted = (one.begin(*padded(PROMPTS, left=True)) for one in (decoder, decoders(base, kind)))
    assert found.dtype == np.float32
    assert np.abs(found - wanted).mean() < 0.05 * wanted.std()
    single = [decoder.begin(*padded([prompt], left=True))[0] for prompt in PROMPTS]
    assert np.abs(found - np.stack(single)).mean() < 0.05 * wanted.std()


def test_the_faster_precision_is_taken(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = torch_eager.export(tmp_path / "timed", folders("gpt2", "prompt"), {}, "plain", [], 512, "causal_lm")
    assert set(facts["milliseconds"]) == {"fp32", "bf16"}
    assert all(len(times) == 2 and min(times) > 0 for times in facts["milliseconds"].values())
    for precision in ("fp32", "bf16"):
        monkeypatch.setattr(_torch_decoder._graph, "quickest", lambda calls, rounds, chosen=precision: (chosen, {}))
        folder = tmp_path / precision
        assert torch_eager.export(folder, folders("gpt2", "prompt"), {}, "plain", [], 32, "causal_lm")["precision"] == precision
        decoder: Any = torch_eager.load(folder, 1)
        assert {parameter.dtype for parameter in decoder._module.parameters()} == {_torch_decoder.dtype(precision)}


def test_int8_is_refused(tmp_path: Path, folders: Folders) -> None:
    source = folders("gpt2", "full")
    fault(lambda: torch_eager.export(tmp_path, source, {}, "int8", [], 32, "causal_lm"), "int8", "language model")


def test_the_step_reads_rows_of_turns(folders: Folders, tmp_path: Path) -> None:
    from trimtune.records import DataSpec
    from trimtune.study import language

    (tmp_path / "t.csv").write_text("prompt,completion\n" + "".join(f"a {'b ' * row},a\n" for row in range(9)), encoding="utf-8")
    (tmp_path / "rows").mkdir()
    language.save(language.read(DataSpec(train=str(tmp_path / "t.csv")), seed=0), tmp_path / "rows")
    facts = _export._export(tmp_path / "made", engine="torch_eager", source=folders("gpt2", "lora"), rows=tmp_path / "rows",
                            config={"precision": "fp32"}, numerics="plain", max_length=32, task="causal_lm")
    assert (facts["task"], facts["packed"]) == ("causal_lm", "plain")
