"""How a signal ends a command at any moment: with one line, a named exit code, a visible cursor, and nothing left.

While `rigflow` itself is imported, the signal ends the process. Then SIGINT raises KeyboardInterrupt, and the command
cleans up; while another module is imported, that waits until it is. Whatever code does with that exception, the command
ends as interrupted: that a signal came is kept here. While the process ends, a signal does nothing, unless that takes
long.

The process ends without the end of the interpreter: threads of FFmpeg, ONNX Runtime and others may still run then, and
crash when their libraries are unloaded, which would make a crash of a command that did all it should.
"""

import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TypeVar

T = TypeVar("T")

CLEANING_UP = ": cleaning up, once more stops at once"  # for commands that take a while
INTERRUPTED = 130  # `ExitCode.INTERRUPTED`, of a module that is not imported yet
PATIENCE_S = 2.0  # for the end of the process; after that a signal ends it at once
THREADS_S = 10.0  # for threads that are no daemons, of a command that was interrupted
IMPORT_S = 30.0  # for an import that is under way; after that it is interrupted
_AGAIN_S = 0.01
_IMPORT_FILE = "<frozen importlib."  # begins the file's name of code that imports modules
_SHOW_CURSOR = b"\x1b[?25h"

_displays: list[Callable[[], None]] = []  # each removes what it shows at a terminal, and shows the cursor
_said = _shown = _ending = False
_came_s: float | None = None  # when the first signal came, on the clock `time.monotonic`


def run_to_its_end(load: Callable[[], Callable[[], int]]) -> NoReturn:
    """Load a command, run it, and end the process with the exit code that it returns."""
    global _ending
    stopped_by: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        """SIGTERM and SIGHUP end a command as Ctrl-C does, so that it cleans up."""
        stopped_by.append(number)
        _send(signal.SIGTERM if number == signal.SIGHUP else signal.SIGINT, frame)

    def run() -> int:
        command = load()
        sys.unraisablehook = _raise_again
        signal.signal(signal.SIGALRM, _repeat)
        _handle(stop, signal.SIGTERM, signal.SIGHUP)
        # the handler that asyncio replaces by its own, and puts back
        signal.default_int_handler = _interrupt  # type: ignore[assignment]
        _handle(_interrupt, signal.SIGINT)
        return command()

    _handle(_leave, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})  # of cli/rigflow
    code = INTERRUPTED
    try:  # noqa: SIM105  # Python calls handlers of signals at calls, and there is none until `_ending` is set
        code = _code_of(run)
    except KeyboardInterrupt:  # of a second signal, while the first one was answered
        pass
    _ending = True
    if code == INTERRUPTED or _came_s is not None:
        say_interrupted()
        code = 128 + (stopped_by or [signal.SIGINT])[0]
    _end(code)


def run_async(work: Coroutine[Any, Any, T], note: str = "") -> T:
    """`asyncio.run` for commands: Ctrl-C is answered by its line at once, because cleaning up may take seconds.

    `note`: what that line also says. An error of the cleaning up is not reported after that, and work that was at its
    end was interrupted, too.
    """
    import asyncio

    async def answered() -> T:
        with _acknowledged(note):
            return await work

    answering = answered()
    try:
        result = asyncio.run(answering)
        if _came_s is not None:
            raise KeyboardInterrupt
        return result
    except Exception as error:
        if _said:
            raise KeyboardInterrupt from error
        raise
    finally:
        answering.close()  # it never began, if the signal came before
        work.close()


def say_interrupted(note: str = "") -> None:
    """Write the line of a command that a signal ended, once."""
    global _said
    for remove in _displays:
        with suppress(Exception):
            remove()
    line = f"rigflow: interrupted{note}\n".encode()
    if not _said:  # a print may be under way, which `print` cannot interrupt
        _said = True
        os.write(2, line)


def waits() -> bool:
    """Whether a signal that came during an import interrupts the command in a moment."""
    return _came_s is not None and signal.getitimer(signal.ITIMER_REAL)[0] > 0.0


def answered_otherwise() -> None:
    """The command said by itself that a signal ends it."""
    global _said
    _said = True


@contextmanager
def display(remove: Callable[[], None]) -> Iterator[None]:
    """A block that shows something at a terminal; `remove` takes it away before a signal's line is written."""
    global _shown
    _shown = True
    _displays.append(remove)
    try:
        yield
    finally:
        remove()
        _displays.remove(remove)


def is_interrupt(error: BaseException) -> bool:
    """Whether an error ends the command because a signal came. Many libraries raise errors of their own in place of a
    KeyboardInterrupt, some without a cause.
    """
    return isinstance(error, KeyboardInterrupt) or _came_s is not None


@contextmanager
def _acknowledged(note: str) -> Iterator[None]:
    """Write the line at the first Ctrl-C, then do what asyncio does: cancel the task, and raise at the second one.

    Enter it inside asyncio, which has a handler.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    # it is ignored in a background job of a shell, and only the main thread has handlers
    if not callable(interrupt) or threading.current_thread() is not threading.main_thread():
        yield
        return

    cancelled = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal cancelled
        _note()
        say_interrupted(note)
        if not (cancelled and _postponed(frame)):
            cancelled = True
            interrupt(number, frame)

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, interrupt)


def _code_of(command: Callable[[], int]) -> int:
    """The exit code of a command, also of one that raises an error; its traceback is printed."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        from cli.closed_output import reader_gone

        return reader_gone()
    except SystemExit:  # of shell completion
        raise
    except BaseException as error:
        if is_interrupt(error):
            return INTERRUPTED
        sys.excepthook(type(error), error, error.__traceback__)
        return 1


def _handle(handler: Callable[[int, FrameType | None], Any], *numbers: signal.Signals) -> None:
    for number in numbers:
        if signal.getsignal(number) is not signal.SIG_IGN:  # of nohup, or of a shell's background job
            signal.signal(number, handler)


def _leave(number: int, frame: FrameType | None) -> None:
    """End the process: nothing is to be cleaned up yet, and an exception is not safe while modules are imported."""
    say_interrupted()
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, after the import that is under way; do nothing while the process ends."""
    if _ending:
        return
    _note()
    if not _postponed(frame):
        raise KeyboardInterrupt
    say_interrupted()


def _note() -> None:
    """Keep that a signal came."""
    global _came_s
    _came_s = time.monotonic() if _came_s is None else _came_s


def _postponed(frame: FrameType | None) -> bool:
    """Whether a module is imported, and a signal is sent again a moment later because of that.

    C extensions raise an ImportError in place of a KeyboardInterrupt, or print it, and some cannot be imported again
    after that.
    """
    if _came_s is None or time.monotonic() - _came_s > IMPORT_S or not _imports(frame):
        return False
    signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    return True


def _imports(frame: FrameType | None) -> bool:
    """Whether a frame is of an import, or of what an import calls."""
    while frame is not None and not frame.f_code.co_filename.startswith(_IMPORT_FILE):
        frame = frame.f_back
    return frame is not None


def _end(code: int) -> NoReturn:
    """End the process with a code, after all that the end of the interpreter would run in Python: threads that are no
    daemons, and exit handlers, which remove temporary files and folders, end child processes and close logs.

    A signal does not disturb that, unless it takes longer than `PATIENCE_S`. An interrupted command waits `THREADS_S`
    for its threads: a pool does not know of one, and never ends it, whose start was interrupted.
    """
    began_s = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 0)  # of a signal that was to be sent again

    def late(number: int, frame: FrameType | None) -> None:
        if time.monotonic() - began_s > PATIENCE_S:
            os._exit(code)

    _handle(late, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for remove in _displays:  # of a block whose end a second signal interrupted
        with suppress(Exception):
            remove()
    if _shown and sys.stderr.isatty():  # a signal may come while a display begins or ends
        os.write(2, _SHOW_CURSOR)
    try:
        if code > INTERRUPTED - signal.SIGINT:  # 128 and a signal
            signal.signal(signal.SIGALRM, _waited)
            signal.setitimer(signal.ITIMER_REAL, THREADS_S)
        with suppress(TimeoutError):
            threading._shutdown()  # type: ignore[attr-defined]
            signal.setitimer(signal.ITIMER_REAL, 0)
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # as a reader that left; an answer that could not be written was reported
                stream.flush()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        os._exit(code)


def _waited(number: int, frame: FrameType | None) -> NoReturn:
    raise TimeoutError


def _raise_again(error: "sys.UnraisableHookArgs") -> None:
    """Python does not raise from some callbacks, as of weak references: a KeyboardInterrupt there is raised a moment
    later. Other errors follow from objects that were being made when a signal came, and are not reported after it.
    """
    if isinstance(error.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
    elif _came_s is None:
        sys.__unraisablehook__(error)


def _repeat(number: int, frame: FrameType | None) -> None:
    _send(signal.SIGINT, frame)


def _send(number: signal.Signals, frame: FrameType | None) -> None:
    """Send a signal to this process. Event loops have handlers that Python does not call."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's background job: sending it does nothing
        _interrupt(number, frame)
    else:
        signal.raise_signal(number)
