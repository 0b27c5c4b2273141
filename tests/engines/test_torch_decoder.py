"""Language models in PyTorch as a runnable folder: what is stored, what is refused, what runs elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.conftest import Decoders, Folders
from tests.engines.language_models import BASES, CONFIGS, KINDS, NEW, PROMPTS, VOCABULARY, alone, tuned_folder
from tests.study.faults import fault

from trimtune.engines import _decoding, _export, _torch_decoder, torch_eager
from trimtune.engines._decoding import generate, padded
from trimtune.engines._torch_decoder import TorchDecoder
from trimtune.tasks import causal_lm


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
        monkeypatch.setattr(_decoding, "quickest", lambda calls, rounds, chosen=precision: (chosen, {}))
        folder = tmp_path / precision
        assert torch_eager.export(folder, folders("gpt2", "prompt"), {}, "plain", [], 32, "causal_lm")["precision"] == precision
        decoder: Any = torch_eager.load(folder, 1)
        assert {parameter.dtype for parameter in decoder._module.parameters()} == {_torch_decoder.dtype(precision)}


def test_the_step_reads_rows_of_turns(folders: Folders, tmp_path: Path) -> None:
    from trimtune.records import DataSpec
    from trimtune.study import language

    (tmp_path / "t.csv").write_text("prompt,completion\n" + "".join(f"a {'b ' * row},a\n" for row in range(9)), encoding="utf-8")
    (tmp_path / "rows").mkdir()
    language.save(language.read(DataSpec(train=str(tmp_path / "t.csv")), seed=0), tmp_path / "rows")
    facts = _export._export(tmp_path / "made", engine="torch_eager", source=folders("gpt2", "lora"), rows=tmp_path / "rows",
                            config={"precision": "fp32"}, numerics="plain", max_length=32, task="causal_lm")
    assert (facts["task"], facts["packed"]) == ("causal_lm", "plain")


@pytest.mark.parametrize("kind", ["full", "prefix", "prompt"])
def test_a_window_never_slides_over_virtual_tokens_because_of_padding(kind: str, tmp_path: Path) -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                           num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, sliding_window=14,
                           initializer_range=0.3)
    (tmp_path / "base").mkdir()
    MistralForCausalLM(config).save_pretrained(tmp_path / "base")
    decoder = TorchDecoder(causal_lm.load_model(tuned_folder(tmp_path / "base", kind, tmp_path / "tuned")))
    for prompt in PROMPTS:
        assert generate(decoder, [prompt], (), NEW) == generate(decoder, [prompt], (), NEW, cached=False)
    if kind == "full":
        assert generate(decoder, PROMPTS, (), NEW) == generate(decoder, PROMPTS, (), NEW, cached=False)
    else:
        assert generate(decoder, PROMPTS[1::2], (), 7) == generate(decoder, PROMPTS[1::2], (), 7, cached=False)
        fault(lambda: generate(decoder, PROMPTS[1::2], (), 9), "unlike lengths", "window of 14")


def test_the_trim_bf16_is_stored_and_runs_whatever_the_clock_says(folders: Folders, decoders: Decoders, tmp_path: Path) -> None:
    facts = torch_eager.export(tmp_path, folders("gpt2", "full"), {"precision": "fp32"}, "bf16", [], 32, "causal_lm")
    assert (facts["precision"], facts["packed"], facts["milliseconds"]) == ("bf16", "packed", {})
    decoder: Any = torch_eager.load(tmp_path, 1)
    assert {parameter.dtype for parameter in decoder._module.parameters()} == {torch.bfloat16}
    ids_BT, mask_BT = padded(PROMPTS, left=False)
    difference = np.abs(decoder.logits(ids_BT, mask_BT) - decoders("gpt2", "full").logits(ids_BT, mask_BT))[mask_BT == 1].max()
    assert 0 < difference < 0.5
