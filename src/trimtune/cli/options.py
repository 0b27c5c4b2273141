"""The arguments and options of the command line, with the words of their help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from trimtune import parts
from trimtune.records import Prefer

Argument, Option = typer.Argument, typer.Option
Format = Literal["csv", "jsonl", "table"]


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"trimtune {version('trimtune')}")
        raise typer.Exit


Version = Annotated[bool, Option("--version", callback=_version, is_eager=True, help="Print the version and end.")]
StudyFile = Annotated[Path, Argument(metavar="STUDY", help="The study file, such as study.yaml.")]
RunFolder = Annotated[Path, Argument(metavar="RUN", help="A run folder, such as runs/helpdesk.")]
Bundle = Annotated[Path, Argument(metavar="BUNDLE", help="A folder that `trimtune ship` wrote.")]
LanguageModel = Annotated[Path, Argument(metavar="FOLDER", help="A language model: a bundle, a folder that `trimtune tune` "
                                                              "wrote, or a run's tuned/METHOD.")]
System = Annotated[str, Option("--system", metavar="TEXT", help="What a conversation begins with.")]
MaxNew = Annotated[int, Option("--max-new", "--max-new-tokens", min=1, help="Tokens after which an answer is cut.")]
AnswerLength = Annotated[int | None, Option("--max-new-tokens", min=1, help="Tokens after which a language model's answer "
                                                                            "is cut. [default: 200]")]
Part = Annotated[str, Argument(metavar="NAME", help="A part, such as lora or int8.")]
Texts = Annotated[list[str] | None, Argument(metavar="[TEXT]...", help="Texts; without any, each line of standard input.")]
Data = Annotated[str, Argument(metavar="DATA", help="A CSV, TSV, JSONL or Parquet file, a hub id, or the bundled 'helpdesk'.")]
DataOrFolder = Annotated[str, Argument(metavar="DATA", help="A CSV, TSV, JSONL or Parquet file, a folder with train.csv, "
                                                            "a hub id, or the bundled 'helpdesk'.")]

Runs = Annotated[Path, Option("--runs", metavar="FOLDER", help="Where runs and their store lie.")]
Json = Annotated[bool, Option("--json", help="One JSON document on standard output, nothing else there.")]
Quiet = Annotated[bool, Option("--quiet", "-q", help="No progress, only the result.")]
Open = Annotated[bool | None, Option("--open/--no-open", help="Open the report in a browser. [default: if there is a screen]")]
Full = Annotated[bool, Option("--full", help="Also print the study with every default filled in.")]
Save = Annotated[bool, Option("--save", help="Keep this choice: rewrite the run folder's result and report.")]
Require = Annotated[list[str] | None, Option("--require", metavar="LIMIT", help="A limit, such as 'size_mb<=25' or "
                                                                                "'accuracy>=parent-0.01'; may be repeated. They "
                                                                                "replace the study's.")]
Preferred = Annotated[Prefer | None, Option("--prefer", help="What decides among those inside the limits; quality: the fastest "
                                                             "of those that can't be told from the best.")]
Shipped = Annotated[str, Option("--format", metavar="FORMAT",
                               help="`bundle`, `peft` (the adapter alone), `merged` (plain transformers weights), or what one of "
                                    "the study's engines writes, such as onnx or openvino.")]
Named = Annotated[str | None, Option("--candidate", metavar="NAME", help="Ship this one instead of the picked one.")]

Shown = Annotated[int, Option("--rows", min=1, help="How many rows.")]

StudyOut = Annotated[Path, Option("-o", "--out", metavar="FILE", help="The study file to write.")]
BundleOut = Annotated[Path, Option("-o", "--out", metavar="FOLDER",
                                   help="The folder to write: absent, empty, or a bundle to replace.")]
FitOut = Annotated[Path, Option("-o", "--out", metavar="FOLDER", help="The fitted model's folder: absent or empty.")]
AnswersOut = Annotated[Path | None, Option("-o", "--out", metavar="FILE", help="Write here instead of to standard output.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Let -o replace a file.")]
Rows = Annotated[Path | None, Option("--file", "-f", metavar="FILE",
                                     help="Rows to answer: CSV, TSV, JSONL, Parquet, or a text per line.")]
Column = Annotated[str | None, Option("--column", metavar="NAME", help="The column of the texts or prompts in --file. "
                                                                         "[default: the study's]")]
Shape = Annotated[Format | None, Option("--format", help="[default: the file's; else table on a terminal, csv elsewhere]")]

StudyName = Annotated[str | None, Option("--name", help="The study's name. [default: from the data's]")]
Model = Annotated[str, Option("--model", help="'minilm' (embedded), a model folder, or a hub id.")]
TextColumn = Annotated[str | None, Option("--text", metavar="COLUMN", help="The text's column, if it can't be seen.")]
LabelColumn = Annotated[str | None, Option("--label", metavar="COLUMN", help="The label's column, if it can't be seen.")]

Method = Annotated[str, Option("--method", help=f"One of {', '.join(parts.names('method'))}.")]
Settings = Annotated[list[str] | None, Option("--set", metavar="KEY=VALUE",
                                              help="An option of the method, such as r=16; may be repeated.")]
DataKeys = Annotated[list[str] | None, Option("--data", metavar="KEY=VALUE",
                                              help="Another key of a study's `data`, such as prompt=question or loss=all; may be "
                                                   "repeated.")]
LearningRate = Annotated[float | None, Option("--lr", help="Learning rate. [default: the middle of the method's range; "
                                                   "`trimtune explain` tells it]")]
Epochs = Annotated[int, Option("--epochs", min=1, max=1000, help="Passes over the rows.")]
BatchSize = Annotated[int, Option("--batch-size", min=1, max=4096,
                                     help="Rows per step; more than memory holds are accumulated to the same gradient.")]
MaxLength = Annotated[int, Option("--max-length", min=4, max=8192, help="Tokens of a row; longer texts are cut, pairs left out.")]
Precision = Annotated[Literal["auto", "fp32", "bf16"], Option("--precision", help="auto: the fastest by a timed matrix product.")]
Patience = Annotated[int, Option("--patience", min=0, max=1000,
                                 help="End after so many epochs without a better score; 0: never.")]
ClassWeights = Annotated[Literal["none", "balanced"], Option("--class-weights",
                                                             help="balanced: a rare class weighs more in the loss.")]
Packing = Annotated[Literal["auto", "on", "off"], Option("--packing",
                                                            help="A language model's rows one behind another instead of padded; "
                                                                 "auto: where that saves a tenth of their places.")]
Seed = Annotated[int, Option("--seed", min=0, max=2**32 - 1, help="Of everything random, a split of the rows too.")]
Validation = Annotated[str | None, Option("--validation", metavar="DATA", help="Validation rows. [default: 15%, by class]")]
Test = Annotated[str | None, Option("--test", metavar="DATA", help="Test rows. [default: 15%, by class]")]
TaskSeen = Annotated[str | None, Option("--task", help="What the rows are for, if it can't be seen: text-classification or "
                                                       "causal-lm.")]
Task = Annotated[str, Option("--task", help=f"One of {', '.join(name.replace('_', '-') for name in parts.names('task'))}.")]
