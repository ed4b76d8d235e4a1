"""The console command. It imports the rest itself, so that Ctrl-C is met from the first."""

from __future__ import annotations

import sys

EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells have it."""


def main() -> int:
    """As `loom_host.cli.main.main`, and 130 where it was interrupted before that could begin."""
    try:
        from .main import main as loom

        return loom()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
