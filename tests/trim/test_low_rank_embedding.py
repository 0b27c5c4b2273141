"""A narrow embedding and a layer that widens it: the best ones for the rows' tokens, read, trimmed and run like any model."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.engines.small_classifier import small_classifier

from trimtune import parts
from trimtune.errors import TrimtuneError
from trimtune.study import data
from trimtune.tasks import _shapes
from trimtune.tasks import text_classification as task
from trimtune.trim import low_rank_embedding
from trimtune.tune.recovery import Setting
from trimtune.tune.vocabulary import narrow

FAST: dict[str, Any] = {"epochs": 0, "rows": 64}
FORMATS = [(engine, numerics) for engine in parts.names("engine")
           for numerics in parts.load("engine", engine).NUMERICS.get("text_classification", ())
           if numerics in (("plain",) if getattr(parts.load("engine", engine), "ONLY_IF_NAMED", False)
                           else ("plain", "int8", "int8_static", "int4"))]
TINY = {"vocab_size": 150, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128,
        "num_labels": 3, "initializer_range": 0.2}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A narrow BERT of two layers with MiniLM's tokenizer, by how it was tuned."""
    return cache(lambda kind: small_classifier(tmp_path_factory.mktemp(kind), kind, layers=2))


@pytest.fixture(scope="module")
def thin(small: Callable[[str], Path], helpdesk_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That BERT with an embedding of 32 channels for 64."""
    folder = tmp_path_factory.mktemp("thin")
    low_rank_embedding.run(folder, small("full"), {"rank": 32, **FAST}, Setting(helpdesk_rows, max_length=32))
    return folder


def logits(model: Any, folder: Path, texts: list[str]) -> torch.Tensor:
    inputs = task.encode(task.load_tokenizer(folder), texts, 32)
    with torch.inference_mode():
        found: torch.Tensor = model(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
        return found


def tiny(kind: str, **more: Any) -> Any:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **{**TINY, **more})
    return AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)


def weighted_error(table: torch.Tensor, first: torch.Tensor, second: torch.Tensor, weight: torch.Tensor) -> float:
    return float((weight * (table - first @ second).double().square().sum(1)).sum())


def test_the_factors_are_the_best_for_tokens_so_often_seen() -> None:
    """The squared singular values of the weighted table that are left out are its error; plain SVD's is larger."""
    torch.manual_seed(0)
    table = torch.randn(400, 32) + torch.randn(32)
    weight = low_rank_embedding.weights(torch.randint(0, 3, (400,)) ** 6, 0.05)
    first, second = low_rank_embedding.factors(table, weight, 8)
    assert (tuple(first.shape), tuple(second.shape)) == ((400, 8), (8, 32))
    foretold = float(torch.linalg.svdvals(weight.sqrt()[:, None] * table.double())[8:].square().sum())
    assert weighted_error(table, first, second, weight) == pytest.approx(foretold, rel=1e-4)
    plain = low_rank_embedding.factors(table, low_rank_embedding.weights(torch.ones(400), 1), 8)
    left, values, right = torch.linalg.svd(table, full_matrices=False)
    torch.testing.assert_close(plain[0] @ plain[1], left[:, :8] * values[:8] @ right[:8], atol=1e-4, rtol=1e-4)
    assert weighted_error(table, *plain, weight) > 1.1 * foretold
    whole = low_rank_embedding.factors(table, weight, 32)
    torch.testing.assert_close(whole[0] @ whole[1], table, atol=1e-4, rtol=1e-4)


def test_long_tables_are_taken_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    table, weight = torch.randn(100, 16), low_rank_embedding.weights(torch.arange(100), 0.1)
    first, second = low_rank_embedding.factors(table, weight, 4)
    kept = low_rank_embedding.energy(table, first, second.T, weight)
    assert kept == pytest.approx(1 - weighted_error(table, first, second, weight)
                                 / float((weight * table.double().square().sum(1)).sum()), abs=1e-4)
    monkeypatch.setattr(low_rank_embedding, "_ROWS_AT_ONCE", 30)
    again = low_rank_embedding.factors(table, weight, 4)
    torch.testing.assert_close(again[0] @ again[1], first @ second, atol=1e-5, rtol=1e-5)
    assert low_rank_embedding.energy(table, first, second.T, weight) == kept


def test_each_token_weighs_as_often_as_it_is_seen_and_never_nothing() -> None:
    counts = low_rank_embedding.counted([[1, 2, 1], [1, 4]], 5)
    assert counts.tolist() == [0, 3, 1, 0, 1]
    weight = low_rank_embedding.weights(counts, 0.2)
    assert weight.tolist() == pytest.approx([0.04, 0.8 * 0.6 + 0.04, 0.8 * 0.2 + 0.04, 0.04, 0.8 * 0.2 + 0.04])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "more"), [("bert", {}), ("distilbert", {"dim": 64, "n_heads": 4}), ("roberta", {}),
                                            ("mpnet", {}), ("electra", {"embedding_size": 32}),
                                            ("albert", {"embedding_size": 32}), ("llama", {"pad_token_id": 0})])
def test_with_all_channels_any_architecture_answers_the_same_and_is_read_back(kind: str, more: dict[str, Any],
                                                                              tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model, ids = tiny(kind, **more), torch.arange(5, 23).view(2, 9)
    mask = (ids < 20).long()
    wanted, table = model(input_ids=ids, attention_mask=mask).logits, low_rank_embedding.table_of(model)
    low_rank_embedding.factorise(model, torch.full((150,), 1 / 150, dtype=torch.float64), table.embedding_dim)
    torch.testing.assert_close(model(input_ids=ids, attention_mask=mask).logits, wanted, atol=1e-3, rtol=1e-3)
    model.save_pretrained(tmp_path)
    again = _shapes.read(AutoModelForSequenceClassification, tmp_path, None, torch.float32)
    assert _shapes.token_table(again).weight.shape == (150, table.embedding_dim)
    torch.testing.assert_close(again.eval()(input_ids=ids, attention_mask=mask).logits, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_the_file_shrinks_as_foretold_and_the_facts_count_the_rows_that_were_drawn(small: Callable[[str], Path],
                                                                                   helpdesk_rows: Path, tmp_path: Path) -> None:
    source, setting = small("full"), Setting(helpdesk_rows, max_length=12, seed=3)
    facts = low_rank_embedding.run(tmp_path, source, {"rank": 24, "epochs": 0, "rows": 20}, setting)
    texts, tokenizer = data.load(helpdesk_rows).train.texts, task.load_tokenizer(source)
    drawn = [texts[row] for row in random.Random(3).sample(range(len(texts)), 20)]
    ids = tokenizer(drawn, truncation=True, max_length=12)["input_ids"]
    assert facts["tokens_seen"] == len({index for row in ids for index in row})
    assert facts["parameters_before"] - facts["parameters"] == 30522 * 64 - 24 * (30522 + 64)
    before, after = ((folder / "model.safetensors").stat().st_size for folder in (source, tmp_path))
    assert before - after == pytest.approx(4 * (facts["parameters_before"] - facts["parameters"]), abs=2000)
    assert 0 < facts["energy_unseen"] < facts["energy_kept"] < 1, "what is seen counts more"
    plain = low_rank_embedding.run(tmp_path / "plain", source, {"unseen": 1, **FAST}, setting)
    assert plain["width"] == 16, "a third of 64, in eights"
    assert plain["energy_unseen"] > facts["energy_unseen"] * 16 / 24


@pytest.mark.slow
def test_it_is_nearer_to_its_parent_than_plain_svd(small: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    source, texts, far = small("full"), data.load(helpdesk_rows).train.texts, {}
    wanted = logits(task.load_model(source), source, texts)
    for unseen in (0.01, 1.0):
        folder = tmp_path / str(unseen)
        low_rank_embedding.run(folder, source, {"rank": 48, "unseen": unseen, "epochs": 0}, Setting(helpdesk_rows, max_length=32))
        far[unseen] = float((logits(task.load_model(folder), folder, texts) - wanted).abs().mean())
    assert far[0.01] < 0.8 * far[1.0]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["prefix", "prompt"])
def test_virtual_tokens_stand_before_the_whole_width(kind: str, small: Callable[[str], Path], tmp_path: Path) -> None:
    from trimtune.trim._model_folder import load, write

    source, texts = small(kind), ["I was charged twice", "hi"]
    module = load(source, task)
    wanted = logits(module, source, texts)
    low_rank_embedding.factorise(module, torch.full((30522,), 1 / 30522, dtype=torch.float64), 64)
    torch.testing.assert_close(logits(module, source, texts), wanted, atol=1e-3, rtol=1e-3)
    write(module, source, tmp_path)
    torch.testing.assert_close(logits(task.load_model(tmp_path), tmp_path, texts), wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_a_fit_trains_the_rows_of_its_texts_alone(thin: Path) -> None:
    model: Any = task.load_model(thin).requires_grad_(True)
    whole, ids = _shapes.token_table(model).weight.detach().clone(), torch.tensor([[5, 9, 700, 3]])
    wanted = model(input_ids=ids).logits
    table = narrow(model, [3, 5, 9, 700])
    assert table is not None
    assert (table.name, table.embedding.weight.shape) == ("bert.embeddings.word_embeddings.narrow.weight", (5, 32))
    torch.testing.assert_close(model(input_ids=ids).logits, wanted)
    torch.testing.assert_close(table.full(table.embedding.weight.detach(), 1.0), whole)
    table.undo()
    torch.testing.assert_close(model(input_ids=ids).logits, wanted)


@pytest.mark.slow
def test_the_recovery_fit_wins_back_what_was_lost(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path: Path) -> None:
    train = data.load(helpdesk_rows).train
    losses = {}
    for epochs in (0, 1):
        folder = tmp_path / str(epochs)
        low_rank_embedding.run(folder, tuned("full"), {"rank": 32, "epochs": epochs}, Setting(helpdesk_rows, max_length=32))
        losses[epochs] = float(task.loss(logits(task.load_model(folder), folder, train.texts), torch.tensor(train.labels)))
    assert losses[1] < 0.9 * losses[0]
    assert np.isfinite(losses[1])


AFTER: list[tuple[str, dict[str, Any]]] = [
    ("prune_vocabulary", {"keep": 500}), ("low_rank", {"ratio": 0.6, **FAST}), ("prune_ffn", FAST), ("prune_heads", FAST),
    ("prune_width", FAST), ("distill", {"layers": 1, "epochs": 0}), ("int8_qat", {"epochs": 1}), ("prune_weights", FAST),
    ("ternary", {"epochs": 0}), ("mixed", {"unit": "block", "rows": 16})]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "config"), AFTER)
def test_trims_follow_it(name: str, config: dict[str, Any], thin: Path, helpdesk_rows: Path, tmp_path: Path) -> None:
    trim, texts = parts.load("trim", name), data.load(helpdesk_rows).test.texts
    known = {key: value for key, value in config.items() if key in trim.Config.model_fields}
    trim.run(tmp_path, thin, trim.Config(**known).model_dump(), Setting(helpdesk_rows, max_length=32))
    model: Any = task.load_model(tmp_path)
    narrow_half, wide = model.get_input_embeddings()
    assert type(narrow_half) is torch.nn.Embedding
    assert type(wide) is torch.nn.Linear, "what is thin already is left alone"
    assert (narrow_half.embedding_dim, wide.out_features) == (32, model.config.hidden_size)
    assert (model.config.hidden_size < 64) == (name == "prune_width")
    assert logits(model, tmp_path, texts).isfinite().all()
    if name == "prune_vocabulary":
        known_texts = data.load(helpdesk_rows).train.texts
        torch.testing.assert_close(logits(model, tmp_path, known_texts), logits(task.load_model(thin), thin, known_texts),
                                   atol=1e-4, rtol=1e-4)
        assert narrow_half.num_embeddings == model.config.vocab_size < 30522
    if name == "ternary":
        assert len(wide.weight.unique()) > 1000, "it lies outside of the blocks"


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "numerics"), FORMATS)
def test_every_engine_runs_it_in_every_format(engine: str, numerics: str, thin: Path, helpdesk_rows: Path,
                                              tmp_path: Path) -> None:
    part, source, texts = parts.load("engine", engine), thin, data.load(helpdesk_rows).test.texts
    if part.available():
        pytest.skip(part.available())
    if numerics != "plain":
        trim, source = parts.load("trim", numerics), tmp_path / numerics
        source.mkdir()
        trim.run(source, thin, trim.Config().model_dump(), Setting(helpdesk_rows, max_length=32))
    (tmp_path / "out").mkdir()
    part.export(tmp_path / "out", source, part.Config().model_dump(), numerics, texts[:16], 32)
    got = part.load(tmp_path / "out", 1)(task.encode(task.load_tokenizer(tmp_path / "out"), texts, 32))
    wanted = logits(task.load_model(thin), thin, texts).numpy()
    far = {"plain": part.TOLERANCE["plain"], "int8": 0.3, "int8_static": 0.3, "int4": 0.6}[numerics]
    assert np.abs(got - wanted).mean() < far * wanted.std()
    if numerics == "int8" and engine == "torch_eager":
        from safetensors.torch import load_file

        stored = load_file(tmp_path / "out" / "model.safetensors")
        kinds = {name.rsplit(".", 2)[-2]: stored[name].dtype for name in stored
                 if "word_embeddings" in name and name.endswith(".weight")}
        assert kinds == {"narrow": torch.int8, "wide": torch.int8}


@pytest.mark.slow
def test_what_is_no_plain_table_or_would_not_shrink_is_refused(thin: Path, small: Callable[[str], Path], helpdesk_rows: Path,
                                                               tmp_path: Path) -> None:
    setting = Setting(helpdesk_rows, max_length=32)
    with pytest.raises(TrimtuneError, match="BertForSequenceClassification is factorised already"):
        low_rank_embedding.run(tmp_path, thin, FAST, setting)
    with pytest.raises(TrimtuneError, match="a rank of 64 for 30,522 tokens and 64 channels saves nothing") as caught:
        low_rank_embedding.run(tmp_path, small("full"), {"rank": 64, **FAST}, setting)
    assert "Allowed: 1 to 63" in caught.value.allowed
    bart = tiny("bart", d_model=64, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=64, decoder_ffn_dim=64,
                encoder_attention_heads=4, decoder_attention_heads=4)
    with pytest.raises(TrimtuneError, match="does more than to look rows up|is used in"):
        low_rank_embedding.table_of(bart)
    assert json.loads((thin / "config.json").read_text())["trimtune_shapes"] is True
