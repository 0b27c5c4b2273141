"""LoRA or full fits of a language model's shape with random weights, by the loop's pieces and the chunked loss.

    python bench/lm.py --shape gpt2 --method lora --steps 6          # 124M parameters, 8 × 256 tokens
    python bench/lm.py --shape llama-1b --method lora --rows 8 --width 1024 --peer   # Trainer + peft on the same

Prints one JSON line: tokens per second, FLOP per token (4 per frozen parameter outside the embedding, 6 per trained one),
peak memory of the process and, on CUDA, of the GPU. bench/fit.py and bench/gpu.py call it.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from trimtune.process import peak_memory_mb
from trimtune.tasks._chunked_loss import chunked
from trimtune.tune import device, dropout, fused_lora, gelu, heap, precision
from trimtune.tune.memory import recompute
from trimtune.tune.optimizer import Masters
from trimtune.tune.trainable import trained

SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": dict(model_type="gpt2"),
    "llama-1b": dict(model_type="llama", vocab_size=32000, hidden_size=2048, num_hidden_layers=20, num_attention_heads=32,
                     num_key_value_heads=8, intermediate_size=6912, tie_word_embeddings=False),
    "llama-tiny": dict(model_type="llama", vocab_size=32000, hidden_size=256, num_hidden_layers=4, num_attention_heads=8,
                       num_key_value_heads=2, intermediate_size=688, tie_word_embeddings=False),
}
TARGETS = {"gpt2": ["c_attn"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="gpt2")
    parser.add_argument("--method", choices=["lora", "full"], default="lora")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--precision", choices=["auto", "fp32", "bf16"], default="auto")
    parser.add_argument("--attention", default="eager")
    parser.add_argument("--compile", action="store_true", help="torch.compile: ours per block, the peer's as Trainer does it")
    parser.add_argument("--recompute", action="store_true", help="activation checkpointing")
    parser.add_argument("--peer", action="store_true", help="transformers.Trainer + peft on the same")
    parser.add_argument("--half-base", action="store_true", help="the peer's frozen weights in bf16; autocast keeps float32")
    asked = parser.parse_args()
    if asked.warmup < 1:
        parser.error("--warmup: at least one step, from whose end the clock runs")
    if not asked.peer:
        heap.prepare()
    torch.manual_seed(0)
    settings = dict(SHAPES[asked.shape])
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    with torch.device(device.here()):
        model = AutoModelForCausalLM.from_config(config, attn_implementation=asked.attention)
    if not asked.peer:
        gelu.fuse(model)
    if asked.method == "lora":
        if not asked.peer:
            dropout.silence_frozen(model)
        targets: Any = TARGETS.get(asked.shape, "all-linear")
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, lora_dropout=0.1,
                                                 target_modules=targets, fan_in_fan_out=asked.shape == "gpt2"))
    ids = torch.randint(0, config.vocab_size, (256, asked.width))
    learn = sum(parameter.numel() for parameter in trained(model).values())
    frozen = sum(parameter.numel() for name, parameter in model.named_parameters()
                 if not parameter.requires_grad and not _embedding(name, config))
    inside = sum(parameter.numel() for name, parameter in trained(model).items() if not _embedding(name, config))
    line = (peer if asked.peer else ours)(model, ids, asked)
    line |= {"shape": asked.shape, "method": asked.method, "who": "peer" if asked.peer else "ours", "trained": learn,
             "flop_per_token": 4 * frozen + 6 * inside, **device.facts(device.of(model)),
             "peak_memory_mb": peak_memory_mb()}
    print(json.dumps(line))


def _embedding(name: str, config: Any) -> bool:
    """A table that is looked up, not multiplied; one that is also the output layer is multiplied."""
    return "wpe" in name or (any(table in name for table in ("embed_tokens", "wte")) and not config.tie_word_embeddings)


def ours(model: Any, ids: torch.Tensor, asked: argparse.Namespace) -> dict[str, Any]:
    place, chosen = device.of(model), precision.choose(asked.precision)
    if asked.method == "lora":
        dropout.quicken(model, 0)
        fused_lora.fuse(model, 0)
    if asked.recompute:
        recompute(model)
    parameters = list(trained(model).values())
    apart = precision.dtype(chosen) != torch.float32
    originals = [parameter.detach().clone() if apart else parameter.detach() for parameter in parameters]
    device.put(model.train(), precision.dtype(chosen))
    masters = Masters(parameters, originals, 1e-4, asked.steps + asked.warmup)
    del originals
    inner = model.base_model.model if asked.method == "lora" else model
    if asked.compile:
        for block in inner.base_model.h if asked.shape == "gpt2" else inner.base_model.layers:
            block.compile()
    started = 0.0
    for step in range(asked.steps + asked.warmup):
        if step == asked.warmup:
            device.wait(place)
            started = time.perf_counter()
        at = asked.rows * step % (len(ids) - asked.rows + 1)
        batch = ids[at:at + asked.rows].to(place)
        hidden = inner.base_model(batch, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        chunked(hidden, inner.lm_head.weight, batch[:, 1:].flatten()).backward()
        masters.step()
    device.wait(place)
    return {"tokens_per_s": asked.steps * asked.rows * asked.width / (time.perf_counter() - started), "precision": chosen}


def peer(model: Any, ids: torch.Tensor, asked: argparse.Namespace) -> dict[str, Any]:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    if asked.half_base:
        for parameter in model.parameters():
            if not parameter.requires_grad:
                parameter.data = parameter.data.bfloat16()
    last = asked.steps + asked.warmup

    class Clock(TrainerCallback):
        started = stopped = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step in (asked.warmup, last):
                device.wait(device.here())
                self.started, self.stopped = self.stopped, time.perf_counter()

    clock = Clock()
    data = [dict(input_ids=row, attention_mask=torch.ones_like(row), labels=row) for row in ids]
    arguments = TrainingArguments(
        output_dir="/tmp/trimtune-peer", per_device_train_batch_size=asked.rows, max_steps=last,
        learning_rate=1e-4, dataloader_drop_last=True, logging_nan_inf_filter=False,
        bf16=asked.precision != "fp32", use_cpu=device.here().type == "cpu", report_to=[],
        save_strategy="no", logging_strategy="no", torch_compile=asked.compile, disable_tqdm=True,
        gradient_checkpointing=asked.recompute)
    Trainer(model=model, args=arguments, train_dataset=data, callbacks=[clock]).train()
    return {"tokens_per_s": asked.steps * asked.rows * asked.width / (clock.stopped - clock.started),
            "precision": "fp32" if asked.precision == "fp32" else "bf16"}


if __name__ == "__main__":
    main()
