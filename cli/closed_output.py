"""What a command does when nothing reads its output any more (`rigflow jobs | head -1`)."""

import os
import sys

from schemas.errors import ExitCode


def reader_gone() -> ExitCode:
    """Whoever read our output has left (`| head -1`): nothing more is written, and the exit code says so."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return ExitCode.READER_GONE
