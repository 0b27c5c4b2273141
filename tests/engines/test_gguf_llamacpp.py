"""Language models as GGUF files: llama.cpp answers as PyTorch and tokenizes as transformers; a wrong file never leaves."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.conftest import Decoders, Folders
from tests.engines.language_models import BASES, NEW, PROMPTS, VOCABULARY, alone

from trimtune.engines import _decoding, _export, _gguf_file, _gguf_vocabulary, _llama_cpp, gguf_llamacpp
from trimtune.engines._decoding import generate, padded
from trimtune.engines._llama_decoder import LlamaDecoder
from trimtune.engines._torch_decoder import TorchDecoder
from trimtune.errors import StepFailed
from trimtune.tasks import causal_lm

LACKING = gguf_llamacpp.available()
pytestmark = [pytest.mark.gguf, pytest.mark.skipif(bool(LACKING), reason=str(LACKING))]
MERGED = ("base", "full", "lora", "ia3")
NEAR = {("llama", "fp32"): 1e-3, ("gpt2", "fp32"): 0.02, ("llama", "fp16"): 0.25, ("gpt2", "fp16"): 0.25}
Export = Callable[..., tuple[dict[str, Any], Path]]


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """These models are too small to be shared, and threads that wait for each other make a busy machine slow."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "999")


@pytest.fixture(scope="module")
def exported(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Export:
    """Facts and folder of (base, kind, numerics), moved to another place."""

    @cache
    def make(base: str, kind: str, numerics: str, precision: str = "fp32") -> tuple[dict[str, Any], Path]:
        made = tmp_path_factory.mktemp("made")
        facts = gguf_llamacpp.export(made, folders(base, kind), {"precision": precision}, numerics, [], 32, "causal_lm")
        return facts, Path(shutil.move(made, tmp_path_factory.mktemp("moved") / "elsewhere"))

    return make


def llama_like(name: str, **settings: Any) -> Any:
    """A tiny random model of a Llama-like class of transformers, its logits whole units apart."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, initializer_range=0.2, **settings)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)  # norms and biases too: each must be felt
    return model


def saved(model: Any, tokenizer: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", MERGED)
@pytest.mark.parametrize("base", BASES)
def test_what_is_exported_answers_as_pytorch_and_elsewhere(base: str, kind: str, precision: str, folders: Folders,
                                                           decoders: Decoders, exported: Export) -> None:
    facts, folder = exported(base, kind, "plain", precision)
    assert facts["difference"] <= NEAR[base, precision]
    assert (facts["packed"], facts["precision"]) == ("plain", precision)
    assert json.loads((folder / "engine.json").read_text()) == facts
    for path in folder.rglob("*"):
        assert str(folders(base, kind)).encode() not in path.read_bytes(), path
    decoder, reference = gguf_llamacpp.load(folder, 1), decoders(base, kind)
    ids_BT, mask_BT = padded(PROMPTS, left=False)
    found, wanted = decoder.logits(ids_BT, mask_BT), reference.logits(ids_BT, mask_BT)
    assert found.dtype == np.float32
    assert np.abs(found - wanted)[mask_BT.astype(bool)].max() <= NEAR[base, precision]
    assert generate(decoder, PROMPTS, (), NEW) == generate(reference, PROMPTS, (), NEW)
    assert [generate(decoder, [prompt], (), NEW)[0] for prompt in PROMPTS] == generate(decoder, PROMPTS, (), NEW, cached=False)


@pytest.mark.parametrize("base", BASES)
def test_the_cache_changes_no_logit(base: str, decoders: Decoders, exported: Export) -> None:
    decoder, draw = gguf_llamacpp.load(exported(base, "full", "plain")[1], 1), np.random.default_rng(0)
    rows = [[*prompt, *draw.integers(0, VOCABULARY, 6).tolist()] for prompt in PROMPTS]
    for chosen in ([0, 1, 2, 3], [2], [1, 3]):
        found = [decoder.begin(*padded([PROMPTS[row] for row in chosen], left=True))]
        found += [decoder.step(np.array([rows[row][len(PROMPTS[row]) + step] for row in chosen])) for step in range(6)]
        for place, row in enumerate(chosen):
            wanted = alone(decoder, rows[row])[len(PROMPTS[row]) - 1:]
            decoder.begin(*padded([PROMPTS[row]], left=True))
            np.testing.assert_allclose(np.stack(found)[:, place], wanted, atol=5e-3, rtol=0)


@pytest.mark.parametrize(("numerics", "share", "spread"), [("int8", 0.35, 0.05), ("int4", 0.29, 0.25)])
@pytest.mark.parametrize("base", BASES)
def test_fewer_bits_are_fewer_bytes_and_stay_near(base: str, numerics: str, share: float, spread: float, exported: Export,
                                                  decoders: Decoders) -> None:
    facts, folder = exported(base, "lora", numerics)
    sizes = {name: (exported(base, "lora", name)[1] / "model.gguf").stat().st_size for name in ("plain", numerics)}
    assert (facts["packed"], facts["precision"]) == ("packed", numerics)
    header = 22_000 if base == "gpt2" else 12_000  # norms, positions and the tokenizer stay as they are
    assert sizes[numerics] - header < share * sizes["plain"]
    assert not list(folder.glob("fp*.gguf"))
    found, wanted = (one.begin(*padded(PROMPTS, left=True)) for one in (gguf_llamacpp.load(folder, 1), decoders(base, "lora")))
    assert 0 < np.abs(found - wanted).mean() < spread * wanted.std()


def test_the_types_are_those_in_the_file(exported: Export) -> None:
    import gguf

    plain, eight, four = (exported("gpt2", "base", numerics)[0]["types"] for numerics in ("plain", "int8", "int4"))
    assert plain == {"F32": 28}
    assert eight == {"F32": 19, "Q8_0": 9}
    assert set(four) == {"F32", "Q5_0", "Q8_0"}, "rows of 32 weights are too short for blocks of 256"
    for base, numerics in (("gpt2", "int4"), ("llama", "int4")):
        facts, folder = exported(base, "base", numerics)
        reference = Counter(tensor.tensor_type.name for tensor in gguf.GGUFReader(folder / "model.gguf").tensors)
        assert facts["types"] == reference


def test_rows_of_256_weights_are_in_4_bits(tmp_path: Path, folders: Folders) -> None:
    import transformers

    config = transformers.GPT2Config(vocab_size=64, n_positions=16, n_embd=256, n_layer=1, n_head=4)
    tokenizer = causal_lm.load_tokenizer(folders("gpt2", "base"))
    source = saved(transformers.GPT2LMHeadModel(config), tokenizer, tmp_path / "wide")
    (tmp_path / "out").mkdir()
    types = gguf_llamacpp.export(tmp_path / "out", source, {}, "int4", [], 16)["types"]
    assert types["Q4_K"] >= 2
    assert types["Q6_K"] >= 1


def test_the_faster_precision_is_taken(folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "timed").mkdir()
    facts = gguf_llamacpp.export(tmp_path / "timed", folders("gpt2", "full"), {}, "plain", [], 512, "causal_lm")
    assert set(facts["milliseconds"]) == {"fp32", "fp16"}
    assert all(len(times) == 2 and min(times) > 0 for times in facts["milliseconds"].values())
    for precision, types in (("fp32", {"F32"}), ("fp16", {"F16", "F32"})):
        monkeypatch.setattr(_decoding, "quickest", lambda calls, rounds, chosen=precision: (chosen, {}))
        folder = tmp_path / precision
        folder.mkdir()
        facts = gguf_llamacpp.export(folder, folders("gpt2", "full"), {}, "plain", [], 32, "causal_lm")
        assert (facts["precision"], set(facts["types"])) == (precision, types)
        assert [path.name for path in folder.glob("*.gguf")] == ["model.gguf"]




@pytest.mark.parametrize("spoil", ["adapter", "rotation", "head"])
def test_a_wrong_file_never_leaves(spoil: str, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = _gguf_file.write
    if spoil == "rotation":
        monkeypatch.setattr(_gguf_file, "neighbors", lambda weight, heads: weight)
    elif spoil == "adapter":
        plain = causal_lm.load_model(folders("llama", "base"))
        monkeypatch.setattr(_gguf_file, "write", lambda path, model, *rest, **named: write(path, plain, *rest, **named))
    else:
        untied = causal_lm.load_model(folders("llama", "base"))
        output = torch.nn.Parameter(untied.lm_head.weight * 1.1, requires_grad=False)
        monkeypatch.setattr(causal_lm, "load_model", lambda source: untied)
        untied.lm_head.weight = output
        facts = gguf_llamacpp.export(tmp_path, folders("llama", "base"), {"precision": "fp32"}, "plain", [], 32)
        assert facts["types"] == {"F32": 48}, "the output layer has a tensor of its own"
        found = _gguf_file.tensors
        monkeypatch.setattr(_gguf_file, "tensors", lambda *given: (one for one in found(*given) if one[0] != "output.weight"))
    with pytest.raises(StepFailed, match="answers differently"):
        gguf_llamacpp.export(tmp_path, folders("llama", "lora"), {"precision": "fp32"}, "plain", [], 32)
    assert not (tmp_path / "engine.json").exists() or spoil == "head"


ROPE3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 10000.0,
         "original_max_position_embeddings": 16}


@pytest.mark.parametrize(("name", "settings"), [
    ("Llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 32}), ("Llama", {"rope_parameters": ROPE3}),
    ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500.0}}),
    ("Mistral", {"sliding_window": None}), ("Qwen2", {"tie_word_embeddings": True}), ("Qwen3", {"head_dim": 32})])
def test_the_kin_of_llama(name: str, settings: dict[str, Any], tmp_path: Path) -> None:
    source = saved(llama_like(name, **settings), byte_level(QWEN2), tmp_path / "made")
    (tmp_path / "out").mkdir()
    facts = gguf_llamacpp.export(tmp_path / "out", source, {"precision": "fp32"}, "plain", [], 32)
    assert facts["difference"] <= 1e-3
    reference = TorchDecoder(causal_lm.load_model(source))
    assert generate(gguf_llamacpp.load(tmp_path / "out", 1), PROMPTS, (), NEW) == generate(reference, PROMPTS, (), NEW)


@pytest.mark.parametrize("base", ["llama", "gpt2"])
def test_rows_outgrow_their_cache_and_end_where_the_model_ends(base: str, folders: Folders, tmp_path: Path) -> None:
    """More tokens than are reserved at first, and than are fed at once, to the last one that the model can hold."""
    source = folders("llama", "base")
    if base == "gpt2":
        import transformers

        torch.manual_seed(0)
        config = transformers.GPT2Config(vocab_size=64, n_positions=600, n_embd=32, n_layer=1, n_head=2, initializer_range=0.4)
        source = saved(transformers.GPT2LMHeadModel(config), causal_lm.load_tokenizer(folders("gpt2", "base")), tmp_path / "long")
    (tmp_path / "out").mkdir()
    gguf_llamacpp.export(tmp_path / "out", source, {"precision": "fp32"}, "plain", [], 32)
    decoder, reference = gguf_llamacpp.load(tmp_path / "out", 1), TorchDecoder(causal_lm.load_model(source))
    context, draw = decoder.context, np.random.default_rng(0)
    assert context == reference.context == (600 if base == "gpt2" else 512)
    rows = [draw.integers(3, 64, length).tolist() for length in (250, 3, context - 4)]
    decoder.begin(*padded(rows[:2], left=True))
    small = decoder.cache_bytes()
    fed = draw.integers(3, 64, (2, 20))
    for step in range(20):
        found = decoder.step(fed[:, step])
    assert decoder.cache_bytes() == 2 * small
    wanted = [alone(reference, [*row, *more.tolist()])[-1] for row, more in zip(rows, fed, strict=False)]
    np.testing.assert_allclose(found, np.stack(wanted), atol=1e-3 if base == "llama" else 0.05, rtol=0)
    assert generate(decoder, rows, (), 9) == generate(reference, rows, (), 9)


def test_tokens_outside_the_vocabulary_fail_and_nothing_is_printed(exported: Export, capfd: pytest.CaptureFixture[str]) -> None:
    folder = exported("llama", "base", "plain")[1]
    capfd.readouterr()
    decoder = gguf_llamacpp.load(folder, 1)
    with pytest.raises(StepFailed, match="llama.cpp can't decode"):
        decoder.begin(*padded([[VOCABULARY + 5]], left=True))
    (folder / "broken.gguf").write_bytes(b"no model")
    with pytest.raises(StepFailed, match="llama.cpp can't load broken.gguf"):
        LlamaDecoder(folder / "broken.gguf", 1, True)
    assert capfd.readouterr() == ("", "")


def test_the_step_reads_rows_of_turns(folders: Folders, tmp_path: Path) -> None:
    from trimtune.records import DataSpec
    from trimtune.study import language

    (tmp_path / "t.csv").write_text("prompt,completion\n" + "".join(f"a {'b ' * row},a\n" for row in range(9)), encoding="utf-8")
    (tmp_path / "rows").mkdir()
    (tmp_path / "made").mkdir()
    language.save(language.read(DataSpec(train=str(tmp_path / "t.csv")), seed=0), tmp_path / "rows")
    facts = _export._export(tmp_path / "made", engine="gguf_llamacpp", source=folders("gpt2", "lora"), rows=tmp_path / "rows",
                            config={"precision": "fp32"}, numerics="int4", max_length=32, task="causal_lm")
    assert (facts["task"], facts["packed"]) == ("causal_lm", "packed")


def byte_level(cut: str, digits: bool = False) -> Any:
    """A byte-level BPE of a few merges that cuts texts by an expression; by GPT-2's own, if none is given."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    before = [pre_tokenizers.Split(Regex(cut), "isolated")] if cut else []
    before += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    made.pre_tokenizer = pre_tokenizers.Sequence([*before, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not cut)])
    made.decoder = decoders.ByteLevel()
    made.train_from_iterator(_gguf_vocabulary.TEXTS * 3, trainers.BpeTrainer(
        vocab_size=480, min_frequency=2, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made.add_special_tokens([AddedToken("<|im_end|>", special=True)])
    made.add_tokens([AddedToken("camelCase", special=False)])
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", bos_token="<|im_end|>")


LLAMA3, QWEN2 = (_gguf_vocabulary._WORDS % digits for digits in ("{1,3}", ""))


@pytest.mark.parametrize(("cut", "digits"), [("", False), ("", True), (LLAMA3, False), (QWEN2, False)],
                         ids=["gpt-2", "smollm", "llama-bpe", "qwen2"])
def test_byte_level_tokenizers_agree(cut: str, digits: bool, tmp_path: Path) -> None:
    tokenizer = byte_level(cut, digits)
    facts = _gguf_file.write(tmp_path / "model.gguf", llama_like("Llama"), tokenizer, "", half=False)
    found = _llama_cpp.tokenized(tmp_path / "model.gguf", _gguf_vocabulary.TEXTS)
    assert facts == {"tokenizer": "gpt2"}
    assert _gguf_vocabulary.agreement(tokenizer, found) == 1
    marked = "camelCase<|im_end|>\nnot camelCases"
    assert _llama_cpp.tokenized(tmp_path / "model.gguf", (marked,)) == [tokenizer(marked)["input_ids"]]


def test_a_wrong_rule_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_gguf_vocabulary._CUTS, (LLAMA3, "bytes"), "falcon")
    tokenizer = byte_level(LLAMA3)
    _gguf_file.write(tmp_path / "model.gguf", llama_like("Llama"), tokenizer, "", half=False)
    assert _gguf_vocabulary.agreement(tokenizer, _llama_cpp.tokenized(tmp_path / "model.gguf", _gguf_vocabulary.TEXTS)) < 1


@pytest.mark.slow
def test_the_tokenizer_of_gpt2_agrees(shared_data: Path, tmp_path: Path) -> None:
    import transformers

    folder = shared_data / "models" / "gpt2_tokenizer"
    if not folder.is_dir():
        pytest.skip(f"needs {folder}")
    config = transformers.GPT2Config(vocab_size=50257, n_positions=32, n_embd=32, n_layer=1, n_head=2)
    source = saved(transformers.GPT2LMHeadModel(config), causal_lm.load_tokenizer(folder), tmp_path / "made")
    (tmp_path / "out").mkdir()
    facts = gguf_llamacpp.export(tmp_path / "out", source, {"precision": "fp16"}, "plain", [], 32)
    assert (facts["tokenizer"], facts["tokenizer_agrees"]) == ("gpt2", 1)


def test_the_tokenizer_of_a_llama_agrees(exported: Export, folders: Folders) -> None:
    facts, folder = exported("llama", "base", "int4")
    assert (facts["tokenizer"], facts["tokenizer_agrees"]) == ("llama", 1)
    texts = ("", "Once upon a time</s><s> there was", "é ü ß 漢", "   three", "a\n\n\nb")
    tokenizer = causal_lm.load_tokenizer(folder)
    assert _llama_cpp.tokenized(folder / "model.gguf", texts) == [tokenizer(text)["input_ids"] for text in texts]


def test_what_cannot_be_said_of_a_tokenizer_is_left_out_and_told(exported: Export) -> None:
    facts, _ = exported("gpt2", "base", "plain")
    assert facts["tokenizer"] == "none"
    assert "WordLevel" in facts["tokenizer_lacks"]
    assert "tokenizer_agrees" not in facts


@pytest.mark.parametrize("whose", ["tokenizer", "study", "nobody"])
def test_the_chat_template_is_in_the_file(whose: str, folders: Folders, tmp_path: Path) -> None:
    import gguf

    from trimtune.store import link_tree

    own, given = "{% for m in messages %}{{ m.content }}{% endfor %}", "{{ messages[0].content }}!"
    link_tree(folders("gpt2", "base"), tmp_path / "made")
    if whose != "nobody":
        tokenizer = causal_lm.load_tokenizer(tmp_path / "made")
        tokenizer.chat_template = own
        for path in tmp_path.glob("made/tokenizer*"):
            path.unlink()
        tokenizer.save_pretrained(tmp_path / "made")
    reading = {"kind": "chat", "template": given if whose == "study" else "", "learned": "answers"}
    (tmp_path / "made" / "rendering.json").write_text(json.dumps(reading))
    (tmp_path / "out").mkdir()
    gguf_llamacpp.export(tmp_path / "out", tmp_path / "made", {"precision": "fp32"}, "plain", [], 32)
    field = gguf.GGUFReader(tmp_path / "out" / "model.gguf").get_field("tokenizer.chat_template")
    assert (field.contents() if field else None) == {"tokenizer": own, "study": given, "nobody": None}[whose]
    assert json.loads((tmp_path / "out" / "rendering.json").read_text()) == reading
