"""What the `ship` command says at its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from trimtune.ship.manifest import ADAPTER, MODEL


def show(manifest: dict[str, Any], out: Path) -> None:
    """What was written, how large it is, and how it is tried."""
    size = {name: (out / name).stat().st_size / 1e6 for name in manifest["files"]}
    if "engine" not in manifest:
        typer.echo(f"Shipped the tuning of {manifest['candidate']} to {out} as {manifest['format']}, without its engine and what "
                   f"that does to numbers: {len(size)} files, {sum(size.values()):.1f} MB. {out / 'README.md'} says how it is "
                   "loaded.")
        return
    model = sum(mb for name, mb in size.items() if name.startswith(f"{MODEL}/"))
    typer.echo(f"Shipped {manifest['candidate']} to {out}: {len(size) + 1} files, {sum(size.values()):.1f} MB, "
               f"{model:.1f} MB of it the model that predicts.")
    if manifest["adapter"]:
        typer.echo(f"{out / ADAPTER} is the tuning in PEFT's format; predicting does without it.")
    typer.echo(f"Try it: trimtune predict {out} \"{'a prompt' if 'rendering' in manifest else 'a text'}\"")
