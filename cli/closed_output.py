"""Ends a command whose output is no longer read (`rigflow jobs | head -1`)."""

import os
import sys

from schemas.errors import ExitCode


def reader_gone() -> ExitCode:
    """Write nothing more, because the reader of our output has ended; the exit code is READER_GONE."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(nowhere, stream.fileno())
    return ExitCode.READER_GONE
