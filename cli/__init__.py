"""The command line `rigflow`."""

import os
import sys

TYPE_CHECKING = False  # of `typing`, which takes 10 ms to import
if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Entry point of `rigflow`."""
    try:
        from cli.interrupts import run_to_its_end  # here: Ctrl-C may come at any moment from now on
    except (KeyboardInterrupt, RuntimeError):  # a RuntimeError is what a class makes of it while it is defined
        os.write(2, b"rigflow: interrupted\n")
        os._exit(130)
    _keep_closed_files()
    run_to_its_end(_command)


def _keep_closed_files() -> None:
    """Have what was started without stdin, stdout or stderr write to nowhere there, and no file get their numbers.

    `sys.stdin` stays None: commands that read it say that it is closed.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            free = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
            os.set_inheritable(free, True)
            if number:
                setattr(sys, name, os.fdopen(number, "w", closefd=False, encoding="utf-8"))


def _command() -> "Callable[[], int]":
    """What the words of the command line are to do; importing it takes most of the time of a short command."""
    from cli.app import answer

    return lambda: answer(sys.argv[1:])
