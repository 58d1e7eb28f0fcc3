"""The command line `rigflow`."""

import os
import sys


def main() -> None:
    """Entry point of `rigflow`."""
    try:
        from cli.interrupts import run_to_its_end  # here: Ctrl-C may come at any moment from now on
    except (KeyboardInterrupt, RuntimeError):  # a RuntimeError is what a class makes of it while it is defined
        os.write(2, b"rigflow: interrupted\n")
        os._exit(130)
    run_to_its_end(sys.argv[1:])
