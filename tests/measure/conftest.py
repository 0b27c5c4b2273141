"""A study's rows and small runnable folders around the real tokenizer of minilm."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtune.records import Artifact
from trimtune.results import DataFacts
from trimtune.store import Store
from trimtune.study import data
from trimtune.study.model import locate

LABELS = ("billing", "login", "outage")
PHRASES = {"billing": ["I was charged twice this month", "where do I find the invoice for March", "refund my card please"],
           "login": ["my password reset link has expired", "can't sign in since this morning", "two factor code never arrives"],
           "outage": ["the whole site is down", "everything times out with error 502", "nothing loads for our team"]}
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json", "config.json")


@pytest.fixture(autouse=True)
def parts_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import trimtune.engines as package

    before = list(package.__path__)
    monkeypatch.setenv("TRIMTUNE_PARTS", str(Path(__file__).parent / "parts"))
    yield
    package.__path__[:] = before


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / ".store")


@pytest.fixture
def rows(store: Store) -> Artifact:
    """60 test rows of three intents, of different lengths."""
    texts = [(f"{phrase}{' thanks' * (index % 4)}", label) for index in range(20)
             for label, phrases in enumerate(PHRASES.values()) for phrase in [phrases[index % 3]]]
    split = data.Split([text for text, _ in texts], [label for _, label in texts])
    facts = DataFacts(labels=LABELS, rows={"train": 60, "validation": 60, "test": 60}, text="text", label="label")

    def work(folder: Path) -> dict[str, Any]:
        data.save(data.Rows(split, split, split, facts), folder)
        return {}

    return store.step("data", "phrases", work, {}, fresh=False)


@pytest.fixture
def runnable(store: Store) -> Callable[..., Artifact]:
    """Makes a runnable folder of the engine `token_votes`, which votes with the words of the phrases."""

    def make(name: str, classes: int = len(LABELS), **behavior: Any) -> Artifact:
        def work(folder: Path) -> dict[str, Any]:
            from safetensors.numpy import save_file
            from transformers import AutoTokenizer

            source = locate("minilm")
            for file in TOKENIZER_FILES:
                if (source / file).exists():
                    (folder / file).write_bytes((source / file).read_bytes())
            tokenizer = AutoTokenizer.from_pretrained(source)
            votes_VC = np.zeros((tokenizer.vocab_size, classes), dtype=np.float32)
            for label, phrases in enumerate(PHRASES.values()):
                votes_VC[sorted({token for phrase in phrases for token in tokenizer(phrase)["input_ids"]}), label % classes] += 1
            save_file({"votes_VC": votes_VC}, folder / "weights.safetensors")
            (folder / "behavior.json").write_text(json.dumps({"name": name, **behavior}))
            return {}

        return store.step("engine", name, work, {}, fresh=False)

    return make


@pytest.fixture
def stories(shared_data: Path) -> Path:
    """The smallest real Llama: 260 thousand parameters that tell stories."""
    return shared_data / "models" / "stories260K"


MILLS = [("name[The Mill], food[Fast]", "The Mill serves fast food."), ("name[The Mill], food[Fast]", "Fast food: The Mill."),
         ("name[Aromi], area[riverside]", "Aromi is by the river."), ("name[Zizzi]", "Zizzi is a pub."),
         ("name[The Mill], food[Fast]", "The Mill is a place for fast food, and it is cheap."),
         *((f"Once upon a time there were {count} birds", f"They had {count} eggs.") for count in range(3, 8)),
         ("Once upon a time there were 8 birds" + " and a dog" * 12, "They had 8 eggs.")]
TALES = ["Once upon a time, there was a little girl named Lily. She loved to play outside in the park.",
         "One day, a big dog came to the house. The dog was happy.", "Tom had a red ball. " * 12]


@pytest.fixture
def lm_rows(store: Store) -> Callable[[str], Artifact]:
    """Test rows of a kind: 11 pairs of 9 prompts, or 3 plain texts."""
    from trimtune.study import language
    from trimtune.study.turns import Turn

    def make(kind: str) -> Artifact:
        rows = ([(Turn("user", prompt), Turn("assistant", answer)) for prompt, answer in MILLS] if kind == "pairs"
                else [(Turn("text", tale),) for tale in TALES])
        split = language.Split(rows, list(range(2, 2 + len(rows))))
        facts = DataFacts(labels=(), rows={"test": len(rows)}, text="mr", label="ref", kind=kind)

        def work(folder: Path) -> dict[str, Any]:
            language.save(language.Rows(split, split, split, facts), folder)
            return {"kind": kind}

        return store.step("data", kind, work, {}, fresh=False)

    return make


@pytest.fixture
def lm(stories: Path, lm_rows: Callable[[str], Artifact]) -> Callable[..., Any]:
    """A language model opened for measuring, in this process."""
    from trimtune.measure._lm_subject import open_lm
    from trimtune.tasks import causal_lm

    def opened(kind: str = "pairs", max_length: int = 128, learned: str = "answers") -> Any:
        return open_lm(causal_lm, stories, "plain_decoder", lm_rows(kind).folder, max_length, 1,
                       {"kind": kind, "template": "", "learned": learned})

    return opened
