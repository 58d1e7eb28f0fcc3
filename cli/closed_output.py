"""What a command does when nothing reads its output any more (`rigflow jobs | head -1`)."""

import os
import sys

from schemas.errors import ExitCode


def reader_gone() -> ExitCode:
    """The reader of our output has ended (`| head -1`): nothing more is written, and the exit code is READER_GONE."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return ExitCode.READER_GONE
