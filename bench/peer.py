"""The reference peer (Trainer + peft), with what its script leaves out: a learning rate, a head-only fit, a validation score.

    python bench/peer.py SCRIPT encoder --method lora --steps 60 --lr 1e-3 --validation val.csv

Everything else is the script's own. Prints the script's JSON line, with `validation_accuracy` added where rows were given.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import json
import runpy
import sys
from typing import Any

import torch
import transformers


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("script")
    parser.add_argument("--head", action="store_true", help="freeze all but the classification head")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--validation", help="CSV of rows to score after training")
    asked, rest = parser.parse_known_args()
    made: list[transformers.Trainer] = []
    arguments, trainer = transformers.TrainingArguments, transformers.Trainer
    set_arguments, set_trainer = arguments.__init__, trainer.__init__
    given = {"seed": asked.seed, **({"learning_rate": asked.lr} if asked.lr else {})}

    def with_given(self: Any, **settings: Any) -> None:
        set_arguments(self, **{**settings, **given})

    def remembered(self: Any, **settings: Any) -> None:
        set_trainer(self, **settings)
        made.append(self)

    arguments.__init__, trainer.__init__ = with_given, remembered  # the classes themselves: transformers hands them out anew
    if asked.head:
        import peft

        peft.get_peft_model = frozen
    sys.argv = [asked.script, *rest]
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        runpy.run_path(asked.script, run_name="__main__")
    line = json.loads(said.getvalue().splitlines()[-1])
    if asked.validation:
        line["validation_accuracy"] = accuracy(made[0], asked.validation)
        assert not asked.lr or made[0].args.learning_rate == asked.lr
    print(json.dumps(line))


def frozen(model: torch.nn.Module, _: object) -> torch.nn.Module:
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    return model


def accuracy(trainer: transformers.Trainer, path: str) -> float:
    """Validation accuracy of the model that the trainer ends with; labels in sorted order, as the script numbers them."""
    collator = trainer.data_collator
    tokenizer = next(cell.cell_contents.tokenizer for cell in collator.__closure__ if hasattr(cell.cell_contents, "tokenizer"))
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = sorted({row["label"] for row in rows})
    model, right = trainer.model.eval(), 0
    with torch.inference_mode():
        for at in range(0, len(rows), 64):
            batch = rows[at:at + 64]
            found = tokenizer([row["text"] for row in batch], truncation=True, max_length=64, padding=True, return_tensors="pt")
            answers = model(input_ids=found["input_ids"], attention_mask=found["attention_mask"]).logits.argmax(-1).tolist()
            right += sum(names[answer] == row["label"] for answer, row in zip(answers, batch, strict=True))
    return right / len(rows)


if __name__ == "__main__":
    main()
