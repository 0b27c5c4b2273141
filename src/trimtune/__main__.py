"""`python -m trimtune`"""

from __future__ import annotations

import sys

from trimtune.cli import main

if __name__ == "__main__":
    sys.exit(main())
