"""`pretune` and `python -m pretune`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line; offline unless the user asks for the hub by `hf:OWNER/NAME`."""
    if not any(argument.startswith("hf:") or "=hf:" in argument for argument in sys.argv):
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    from pretune.cli import app

    app(prog_name="pretune")


if __name__ == "__main__":
    main()
