"""The command line `rigflow`."""

import signal
import sys
from types import FrameType

from cli.closed_output import reader_gone
from schemas.errors import ExitCode


def main() -> None:
    """Entry point of `rigflow`."""
    stopped_by: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        """SIGTERM and SIGHUP end a command as Ctrl-C does, so that it cleans up."""
        stopped_by.append(number)
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's background job: raising it does nothing
            raise KeyboardInterrupt
        signal.raise_signal(signal.SIGTERM if number == signal.SIGHUP else signal.SIGINT)

    try:
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # of nohup
                signal.signal(number, stop)
        from cli.app import answer  # here, so that Ctrl-C ends even the imports cleanly

        code: int = answer(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = ExitCode.INTERRUPTED
    except BrokenPipeError:
        code = reader_gone()
    if code == ExitCode.INTERRUPTED and stopped_by:
        code = 128 + stopped_by[0]
    sys.exit(code)
