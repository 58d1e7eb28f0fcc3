"""A command at a terminal of its own, as a person has it: keys go in, and all that it shows comes out."""

import os
import pty
import select
import sys
import time
from pathlib import Path

from tests.cli import environment

CTRL_C = b"\x03"
COMMAND = Path(__file__).parents[1] / "cli" / "rigflow"  # what people have on their PATH
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"


class Terminal:
    """`rigflow ARGUMENTS` at a terminal. Its processes are found by their folder for temporary files."""

    def __init__(self, scratch: Path, *arguments: str | Path) -> None:
        """`scratch` is that folder."""
        self.scratch = scratch
        self._shown = b""
        self.code: int | None = None
        words = [str(COMMAND), *map(str, arguments)]
        env = environment() | {"TMPDIR": str(scratch), "TERM": "xterm-256color"}
        env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execvpe(words[0], words, env)

    def read_for(self, seconds: float) -> None:
        """Read what it shows for so long, or until it ends."""
        until_s = time.monotonic() + seconds
        while self.code is None and (left_s := until_s - time.monotonic()) > 0:
            if not select.select([self._terminal], [], [], left_s)[0]:
                return
            try:
                more = os.read(self._terminal, 1 << 16)
            except OSError:  # Linux, when the other end is closed
                more = b""
            if not more:
                self._end()
            self._shown += more

    def press(self, keys: bytes) -> None:
        """Press keys, unless it has ended."""
        if self.code is None:
            os.write(self._terminal, keys)

    def end(self, timeout_s: float = 60.0) -> int:
        """Wait for its end; the exit code, or minus the signal that ended it."""
        self.read_for(timeout_s)
        assert self.code is not None, f"it runs after {timeout_s} s and shows {self.shown}"
        return self.code

    @property
    def shown(self) -> str:
        """All that it showed until now."""
        return self._shown.decode(errors="replace")

    @property
    def cursor_is_hidden(self) -> bool:
        """Whether a person sees no cursor now."""
        return self.shown.rfind(HIDDEN) > self.shown.rfind(SHOWN)

    def _end(self) -> None:
        self.code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        os.close(self._terminal)
