"""The command line: `main` runs one. The commands are in app.py and about.py, their options in options.py."""

from __future__ import annotations

from trimtune.cli import about as about  # its commands register themselves
from trimtune.cli.app import app as app
from trimtune.cli.app import main as main
