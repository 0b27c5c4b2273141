"""A language model of a few thousand weights with a tokenizer of its own, made from the bundled texts."""

import csv
from pathlib import Path

import trimtune


def texts(split="train"):
    with (Path(trimtune.__file__).parent / "data" / "helpdesk" / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def make(folder, kind="llama", vocabulary=512):
    """Write a model folder: `kind` is llama or gpt2; weights are random, drawn from seed 0."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.train_from_iterator(texts(), trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=["<s>", "</s>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    if kind == "gpt2":
        model = GPT2LMHeadModel(GPT2Config(vocab_size=vocabulary, n_positions=256, n_embd=48, n_layer=3, n_head=4, bos_token_id=0,
                                           eos_token_id=1))
    else:
        model = LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, hidden_size=48, intermediate_size=96, num_hidden_layers=3,
                                             num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
                                             bos_token_id=0, eos_token_id=1))
    model.save_pretrained(folder)
    return folder
