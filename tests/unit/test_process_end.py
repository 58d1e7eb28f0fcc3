"""A command's process ends with its exit code: Python's exit handlers run, those of native libraries do not."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.cli import environment

COMMAND = """
import atexit, contextlib, ctypes, os, signal, sys, tempfile, threading
from cli.interrupts import run_to_its_end

libc = ctypes.CDLL(None)

def command():
    folder = tempfile.TemporaryDirectory()
    atexit.register(lambda: sys.stdout.write("handler "))
    late = threading.Event()
    threading.Thread(target=lambda: (late.wait(), sys.stdout.write("thread "))).start()
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    atexit.register(lambda: sys.stdout.write(f"{os.path.exists(folder.name)} "))
    atexit.register(lambda: sys.stdout.write("last "))
    command.kept = folder
    threading._register_atexit(late.set)
    # what libc calls at the end of a process, as the destructors of C++ libraries
    libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)
    sys.stdout.write(folder.name + " ")
    ENDING

run_to_its_end(lambda: command)
"""

WHILE_BUILDING = """
    from pydantic_core import SchemaValidator, core_schema

    class Interrupted:
        def __repr__(self):
            signal.raise_signal(signal.SIGINT)

    field = core_schema.model_field(core_schema.literal_schema([Interrupted()]))
    SchemaValidator(core_schema.model_fields_schema({"fit": field}))
"""

# of a module in which the signal comes
IMPORT = """
    with open(os.path.join(folder.name, "slow.py"), "w") as file:
        file.write("import signal, sys, time; signal.raise_signal(2); time.sleep(0); sys.stdout.write('imported ')")
    sys.path.append(folder.name)
    import slow
"""


def ended(how: str) -> "subprocess.CompletedProcess[str]":
    """A process whose command ends so."""
    words = [sys.executable, "-c", COMMAND.replace("ENDING", how)]
    return subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=60, check=False)


def test_what_python_does_at_the_end_is_done_and_nothing_of_native_libraries() -> None:
    done = ended("return 7")
    folder, *words = done.stdout.split()
    assert (done.returncode, done.stderr) == (7, "")
    assert words == ["thread", "last", "True", "handler"], "the thread is waited for, handlers go from the last on"
    assert not Path(folder).exists()


def test_the_test_sees_the_end_that_libraries_disturb() -> None:
    assert ended("os._exit = lambda code: sys.exit(code); return 7").returncode == -signal.SIGABRT


def test_ctrl_c_while_pydantic_builds_a_model_is_no_fault() -> None:
    """Its core raises an error that has no cause, where a callback into Python was interrupted."""
    done = ended(WHILE_BUILDING)
    assert (done.returncode, done.stderr) == (130, "rigflow: interrupted\n")


def test_a_command_whose_library_hides_that_it_was_interrupted_ends_as_interrupted() -> None:
    for then in ("return 7", "raise ImportError('initialization failed')"):
        done = ended(f"""
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    {then}
    """)
        assert (done.returncode, done.stderr) == (130, "rigflow: interrupted\n")


def test_ctrl_c_in_an_import_reaches_the_event_loop_that_the_command_runs_next() -> None:
    """Which has a handler that Python does not call."""
    done = ended(f"""
    import asyncio, cli.interrupts
    cli.interrupts._AGAIN_S = 0.3
    {IMPORT}
    async def main():
        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
        await stopped.wait()
        sys.stdout.write("stopped ")
    asyncio.run(main())
    return 0
    """)
    assert (done.returncode, done.stderr) == (130, "rigflow: interrupted\n")
    assert done.stdout.split()[1:3] == ["imported", "stopped"]


def test_ctrl_c_while_an_event_loop_is_made_leaves_no_warning_of_its_parts() -> None:
    done = ended("""
    import asyncio
    from cli.interrupts import run_async

    async def work(): pass
    asyncio.BaseEventLoop.set_debug = lambda *_: signal.raise_signal(signal.SIGINT)  # as its constructor does
    run_async(work())
    return 0
    """)
    assert (done.returncode, done.stderr) == (130, "rigflow: interrupted\n")


def test_ctrl_c_in_an_import_of_a_task_cancels_the_task() -> None:
    done = ended(
        """
    import asyncio
    from cli.interrupts import run_async

    async def work():
        IMPORT
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, lambda: sys.stdout.write("again "))
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            sys.stdout.write("cancelled ")
            await asyncio.sleep(0.1)
    run_async(work(), ": cleaning up")
    return 0
    """.replace("IMPORT", IMPORT.replace("\n", "\n    "))
    )
    assert (done.returncode, done.stderr) == (130, "rigflow: interrupted: cleaning up\n")
    assert done.stdout.split()[1:3] == ["imported", "cancelled"]
    assert "again" not in done.stdout


def test_an_import_that_does_not_end_is_interrupted() -> None:
    done = ended(f"""
    import cli.interrupts
    cli.interrupts.IMPORT_S = 0.1
    import time; time.sleep = lambda seconds, sleep=time.sleep: sleep(300)
    {IMPORT}
    """)
    assert (done.returncode, done.stderr) == (130, "rigflow: interrupted\n")
    assert "imported" not in done.stdout


def test_an_interrupted_command_does_not_wait_for_a_thread_that_nobody_ends() -> None:
    done = ended("""
    import cli.interrupts

    cli.interrupts.THREADS_S = 0.1
    threading.Thread(target=threading.Event().wait).start()
    raise KeyboardInterrupt
    """)
    assert (done.returncode, done.stderr) == (130, "rigflow: interrupted\n")
    assert done.stdout.endswith("last True handler "), "exit handlers are called all the same"


def test_a_fault_of_ours_has_its_traceback_and_code_1() -> None:
    done = ended("raise RuntimeError('a fault')")
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("RuntimeError: a fault\n")
    assert done.stdout.endswith("handler ")


def test_a_second_signal_when_the_process_begins_to_end_does_nothing() -> None:
    done = ended("""
    import cli.interrupts
    cli.interrupts._end = lambda code, end=cli.interrupts._end: (signal.raise_signal(signal.SIGINT), end(code))
    raise KeyboardInterrupt
    """)
    assert (done.returncode, done.stderr) == (130, "rigflow: interrupted\n")


def test_a_signal_at_the_end_does_not_change_the_code() -> None:
    done = ended("atexit.register(lambda: os.kill(os.getpid(), 15)); return 3")
    assert (done.returncode, done.stderr) == (3, "")
