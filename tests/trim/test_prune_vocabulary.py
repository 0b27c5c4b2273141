"""A smaller vocabulary: rows of kept words stay as they were, other words fall back to pieces, all files agree."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from trimtune.errors import TrimtuneError
from trimtune.study import data
from trimtune.tasks import text_classification as task
from trimtune.trim import _pieces, prune_vocabulary
from trimtune.trim._model_folder import base_of
from trimtune.tune.recovery import Setting


@dataclass
class Cut:
    source: Path
    folder: Path
    facts: dict[str, Any]
    old: Any
    new: Any


@pytest.fixture(scope="module")
def cut(tuned: Callable[[str], Path], helpdesk_rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Cut]:
    """A tuned model of a kind without the tokens that 96 rows never use; `keep` of the others stay."""
    made: dict[tuple[str, int], Cut] = {}

    def make(kind: str = "full", keep: int = 2000) -> Cut:
        if (kind, keep) not in made:
            folder, source = tmp_path_factory.mktemp("cut"), tuned(kind)
            facts = prune_vocabulary.run(folder, source, {"keep": keep}, Setting(helpdesk_rows, max_length=32))
            made[kind, keep] = Cut(source, folder, facts, task.load_tokenizer(source), task.load_tokenizer(folder))
        return made[kind, keep]

    return make


def logits(folder: Path, texts: list[str]) -> torch.Tensor:
    inputs = task.encode(task.load_tokenizer(folder), texts, 32)
    with torch.inference_mode():
        model: Any = task.load_model(folder)
        found: torch.Tensor = model(**{name: torch.from_numpy(values) for name, values in inputs.items()}).logits
        return found


def kept_rows(made: Cut, texts: list[str]) -> list[str]:
    """Rows whose every piece is still there."""
    left = set(made.new.get_vocab())
    return [text for text in texts if set(made.old.tokenize(text)) <= left]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora", "prompt"])
def test_rows_of_kept_words_have_the_same_tokens_and_the_same_logits(kind: str, cut: Callable[..., Cut],
                                                                     helpdesk_rows: Path) -> None:
    made, rows = cut(kind), data.load(helpdesk_rows)
    same = kept_rows(made, rows.test.texts)
    assert 3 <= len(same) < len(rows.test.texts), "the test needs rows of both kinds"
    for text in [*rows.train.texts, *same]:
        assert made.new.convert_ids_to_tokens(made.new(text)["input_ids"]) == made.old.convert_ids_to_tokens(
            made.old(text)["input_ids"])
    torch.testing.assert_close(logits(made.folder, rows.train.texts), logits(made.source, rows.train.texts), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(made.folder, same), logits(made.source, same), atol=1e-5, rtol=1e-5)
    changed = [text for text in rows.test.texts if text not in same]
    assert (logits(made.folder, changed) - logits(made.source, changed)).abs().max() > 1e-2
    assert (made.folder / task.ADAPTER).is_dir() == (kind in ("prefix", "prompt"))


@pytest.mark.slow
def test_the_facts_are_what_a_reader_of_both_tokenizers_counts(cut: Callable[..., Cut], helpdesk_rows: Path) -> None:
    made, rows = cut(), data.load(helpdesk_rows)
    left = set(made.new.get_vocab())
    assert made.facts["tokens_before"] == 30522
    assert made.facts["tokens"] == len(left) == len(made.new) == base_of(task.load_model(made.folder)).config.vocab_size
    assert made.facts["parameters_before"] - made.facts["parameters"] == (30522 - len(left)) * 384
    for name in ("train", "validation", "test"):
        texts = getattr(rows, name).texts
        tokens = [made.old.convert_ids_to_tokens(made.old(text, truncation=True, max_length=32)["input_ids"]) for text in texts]
        lost = [sum(token not in left for token in row) for row in tokens]
        assert made.facts["tokens_dropped"][name] == pytest.approx(sum(lost) / sum(map(len, tokens)), abs=1e-5)
        assert made.facts["rows_changed"][name] == pytest.approx(sum(map(bool, lost)) / len(texts), abs=1e-5)
    assert made.facts["tokens_dropped"]["train"] == 0 < made.facts["tokens_dropped"]["test"] < 0.3


@pytest.mark.slow
def test_any_word_still_falls_back_to_pieces(cut: Callable[..., Cut]) -> None:
    made = cut()
    left = made.new.get_vocab()
    dropped = [piece for piece in made.old.get_vocab() if piece not in left and piece.isalpha()]
    assert len(dropped) > 10_000
    for word in [*dropped[::10], "donaudampfschifffahrt", "naïve", "日本語", "x1y2z3"]:
        assert ("[UNK]" in made.new.tokenize(word)) == ("[UNK]" in made.old.tokenize(word)), word
        assert "".join(made.new.tokenize(word)).replace("##", "") == "".join(made.old.tokenize(word)).replace("##", "")


@pytest.mark.slow
def test_keep_adds_the_first_of_the_tokenizers_order(cut: Callable[..., Cut]) -> None:
    none, some = cut(), cut("full", 2100)
    assert some.facts["tokens"] == none.facts["tokens"] + 100
    old, left, fewer = none.old.get_vocab(), set(some.new.get_vocab()), set(none.new.get_vocab())
    order = sorted(old, key=old.__getitem__)
    added = [piece for piece in order if piece in left and piece not in fewer]
    skipped = [piece for piece in order if piece not in left and not piece.startswith("[unused")]
    assert order.index(added[-1]) < order.index(skipped[0]), "no rarer piece stays where a more frequent one went"


@pytest.mark.slow
def test_plain_transformers_reads_it_and_all_ids_agree(cut: Callable[..., Cut], helpdesk_rows: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    made, texts = cut(), data.load(helpdesk_rows).test.texts[:4]
    tokenizer: Any = AutoTokenizer.from_pretrained(made.folder)
    inputs = tokenizer(texts, padding=True, return_tensors="pt", truncation=True, max_length=32)
    with torch.inference_mode():
        found = AutoModelForSequenceClassification.from_pretrained(made.folder)(**inputs).logits
    torch.testing.assert_close(found, logits(made.folder, texts), atol=1e-5, rtol=1e-5)
    config = json.loads((made.folder / "config.json").read_text())
    assert config["pad_token_id"] == tokenizer.pad_token_id == tokenizer.convert_tokens_to_ids("[PAD]")
    assert tokenizer("a")["input_ids"] == tokenizer.convert_tokens_to_ids(["[CLS]", "a", "[SEP]"])
    assert tokenizer.cls_token_id < 100 < made.old.cls_token_id, "the places left free before it are gone"
    assert tokenizer.decode(tokenizer("refund my invoice")["input_ids"], skip_special_tokens=True) == "refund my invoice"


@pytest.mark.slow
def test_it_goes_before_other_trims(cut: Callable[..., Cut], helpdesk_rows: Path, tmp_path: Path) -> None:
    from trimtune.trim import low_rank, prune_ffn

    made, rows = cut("prefix"), data.load(helpdesk_rows)
    setting = Setting(helpdesk_rows, max_length=32)
    prune_ffn.run(tmp_path / "pruned", made.folder, {"ratio": 0.1, "epochs": 0, "rows": 16}, setting)
    low_rank.run(tmp_path / "thin", tmp_path / "pruned", {"energy": 0.98, "ratio": None, "epochs": 0, "rows": 96}, setting)
    again = prune_vocabulary.run(tmp_path / "again", tmp_path / "thin", {"keep": 2000}, setting)
    assert again["tokens"] == again["tokens_before"] == made.facts["tokens"]
    found, wanted = logits(tmp_path / "again", rows.test.texts), logits(made.source, rows.test.texts)
    assert (found - wanted).abs().mean() < wanted.std()


def test_characters_and_pieces_that_they_cannot_spell_are_needed() -> None:
    vocabulary = {"[PAD]": 0, "a": 1, "##b": 2, "ab": 3, "##ab": 4, "##a": 5, "bb": 6, "##": 7, "##x": 8, "cat": 9, "[": 10,
                  "##P": 11, "##A": 12, "##D": 13, "##]": 14, "#": 15, "###": 16}
    pieces = {"type": "WordPiece", "vocab": vocabulary, "continuing_subword_prefix": "##"}
    assert set(vocabulary.values()) - _pieces.closed(pieces, set()) == {0, 3, 4, 7}
    assert _pieces.closed(pieces, {3}) - _pieces.closed(pieces, set()) == {3}


def test_every_merge_that_leads_to_a_kept_piece_stays() -> None:
    vocabulary = {piece: index for index, piece in enumerate(["a", "b", "c", "d", "ab", "bc", "abc", "cd", "abcd", "dd"])}
    for merges in (["a b", "b c", "ab c", "a bc", "c d", "ab cd", "d d"], [["a", "b"], ["b", "c"], ["ab", "c"], ["a", "bc"],
                                                                         ["c", "d"], ["ab", "cd"], ["d", "d"]]):
        pieces = {"type": "BPE", "vocab": vocabulary, "merges": merges}
        kept = _pieces.closed(pieces, {vocabulary["abc"]})
        assert {piece for piece, index in vocabulary.items() if index in kept} == {"a", "b", "c", "d", "ab", "bc", "abc"}


def test_a_template_in_any_form_is_renumbered(tmp_path: Path) -> None:
    whole = {"model": {"type": "WordPiece", "vocab": {"[CLS]": 3, "[SEP]": 5, "a": 9, "b": 10}}, "padding": {"pad_id": 3},
             "added_tokens": [{"id": 3, "content": "[CLS]"}, {"id": 5, "content": "[SEP]"}],
             "post_processor": {"type": "Sequence", "processors": [
                 {"type": "BertProcessing", "cls": ["[CLS]", 3], "sep": ["[SEP]", 5]},
                 {"type": "TemplateProcessing", "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [3]}}}]}}
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": {"5": {"content": "[SEP]"}}}))
    _pieces.renumber(tmp_path, {3: 0, 5: 1, 9: 2})
    found = json.loads((tmp_path / "tokenizer.json").read_text())
    assert found["model"]["vocab"] == {"[CLS]": 0, "[SEP]": 1, "a": 2}
    assert [token["id"] for token in found["added_tokens"]] == [0, 1]
    bert, template = found["post_processor"]["processors"]
    assert (bert["cls"], bert["sep"], template["special_tokens"]["[CLS]"]["ids"]) == (["[CLS]", 0], ["[SEP]", 1], [0])
    assert found["padding"]["pad_id"] == 0
    assert list(json.loads((tmp_path / "tokenizer_config.json").read_text())["added_tokens_decoder"]) == ["1"]


def _trained(kind: str, texts: list[str]) -> Any:
    """A tokenizer of 400 pieces that learned from these texts, in the class that a model of its kind has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import RobertaTokenizer, XLMRobertaTokenizer

    special = ["<s>", "<pad>", "</s>", "<unk>"]
    if kind == "BPE":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=400, special_tokens=[*special, "<mask>"],
                                                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
        model = json.loads(made.to_str())["model"]
        return RobertaTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>"))
    pieces = json.loads(made.to_str())["model"]["vocab"]
    return XLMRobertaTokenizer(vocab=[*map(tuple, pieces), ("<mask>", 0.0)])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "count"), [("BPE", 12), ("Unigram", 60)])
def test_other_kinds_of_tokenizers_keep_their_rows_too(kind: str, count: int, helpdesk_rows: Path, tmp_path: Path) -> None:
    from transformers import RobertaConfig, RobertaForSequenceClassification

    whole = data.load(helpdesk_rows)
    tokenizer = _trained(kind, [*whole.train.texts, *whole.validation.texts, *whole.test.texts])
    tokenizer.save_pretrained(tmp_path / "source")
    torch.manual_seed(0)
    RobertaForSequenceClassification(RobertaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        num_labels=12, max_position_embeddings=64, pad_token_id=1, bos_token_id=0, eos_token_id=2,
        initializer_range=0.3)).save_pretrained(tmp_path / "source")
    few = data.Rows(data.Split(whole.train.texts[:count], whole.train.labels[:count]), whole.validation, whole.test, whole.facts)
    (tmp_path / "rows").mkdir()
    data.save(few, tmp_path / "rows")
    facts = prune_vocabulary.run(tmp_path / "cut", tmp_path / "source", {"keep": 0}, Setting(tmp_path / "rows", max_length=40))
    assert facts["tokens"] < 0.95 * facts["tokens_before"]
    made = Cut(tmp_path / "source", tmp_path / "cut", facts, task.load_tokenizer(tmp_path / "source"),
               task.load_tokenizer(tmp_path / "cut"))
    same = kept_rows(made, [*whole.validation.texts, *whole.test.texts])
    assert same
    for text in same:
        assert made.new.tokenize(text) == made.old.tokenize(text)
    torch.testing.assert_close(logits(made.folder, same), logits(made.source, same), atol=1e-5, rtol=1e-5)
    for text in whole.test.texts:
        assert made.new.decode(made.new(text)["input_ids"], skip_special_tokens=True) == made.old.decode(
            made.old(text)["input_ids"], skip_special_tokens=True)


def test_kinds_that_cannot_be_cut_are_refused() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    whole_words = models.BPE({"a": 0, "b": 1}, [], ignore_merges=True)
    for kind, model in (("WordLevel", models.WordLevel({"a": 0}, "a")), ("BPE with ignore_merges", whole_words)):
        with pytest.raises(TrimtuneError, match=f"of the kind {kind}"):
            _pieces.of(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(model)))
