"""Make a small GPT-2 with a tokenizer of its own from the bundled texts, for those without a network or a model.

    python examples/small_gpt.py examples/small-gpt         # a minute; then: trimtune run examples/language_model.yaml

A byte-level BPE of 1,000 tokens, 4 layers, 128 wide, trained on 1,152 short messages: enough to see the flow, no more.
A pretrained model (openai-community/gpt2, Qwen/Qwen3-0.6B, a folder of yours) is what you want wherever you can have one.
"""

import argparse
import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

import trimtune
from trimtune import api


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="where the model goes; what is in it is never overwritten")
    parser.add_argument("--epochs", type=int, default=6)
    asked = parser.parse_args()
    with TemporaryDirectory() as home:
        untrained(Path(home))
        api.tune("helpdesk", model=home, method="full", learning_rate=1e-3, epochs=asked.epochs, task="causal-lm",
                      data={"text": "text"}, out=asked.folder)
    print(f"{asked.folder} is ready")


def untrained(folder: Path) -> None:
    bundled = Path(trimtune.__file__).parent / "data" / "helpdesk" / "train.csv"
    with bundled.open(encoding="utf-8", newline="") as file:
        texts = [" ".join(row.values()) for row in csv.DictReader(file)]
    end = "<|endoftext|>"
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(texts, vocab_size=1000, special_tokens=[end])
    PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=end, eos_token=end).save_pretrained(folder)
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(vocab_size=bpe.get_vocab_size(), n_positions=256, n_embd=128, n_layer=4, n_head=4, bos_token_id=0,
                               eos_token_id=0)).save_pretrained(folder)


if __name__ == "__main__":
    main()
