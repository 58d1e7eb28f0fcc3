"""The command line `rigflow`."""

import sys


def main() -> None:
    """Entry point of `rigflow`."""
    try:
        from workers.cli.app import answer  # here, so that Ctrl-C ends even the imports cleanly

        code = answer(sys.argv[1:])
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)
