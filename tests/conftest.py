"""What all tests share: async test functions, and a real nats-server on a temporary store.

With TEST_ASM=avx2 or sse2 (values of the encoders' `asm`) in the environment, they use that instruction set, in the
tests' own process and in those that they start. With TEST_DEVICE=cuda:0 the workers of `tests.fleet` compute there.
"""

import asyncio
import gc
import importlib
import inspect
import os
import re
import runpy
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from xdist import is_xdist_controller

from pipelines.server import EmbeddedServer
from schemas.settings import Settings
from tests import warm_process
from tests.film_digests import ASM_FOLDER
from tests.kept_folders import kept_folder, remove_kept_folders
from workers.forkserver import start_fork_server

if TYPE_CHECKING:
    from tests.guarded import Guarded

MIB = 1 << 20
ROOT = Path(__file__).parent.parent
MEMORY = Path("/dev/shm")


def has_room_in_memory() -> bool:
    """Whether files can be in memory, and 8 GiB of that are available."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < 8 << 30:
        return False
    available = re.search(r"MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text())
    return available is not None and int(available[1]) > 8 << 20


gc.disable()  # until the modules of tests are imported

# Models that a person keeps, and what workers cache, are nothing to tests: all processes of a run have one home. The
# stores of their brokers are in memory where there is enough: on a disk a broker's streams cost three times the CPU.
if "TEST_HOME" not in os.environ:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    if has_room_in_memory():
        tempfile.tempdir = str(MEMORY)
    os.environ["TEST_HOME"] = str(kept_folder("home"))
    os.environ["TMPDIR"] = tempfile.mkdtemp(prefix="rigflow-temporary-")
    # last of all: multiprocessing's own folder is in it
    Finalize(None, shutil.rmtree, (os.environ["TMPDIR"], True), exitpriority=-1000)
os.environ["HOME"], tempfile.tempdir = os.environ["TEST_HOME"], None

# Nor is the fleet that a person's shell names, for tests and for the commands that they start.
for variable in [name for name in os.environ if name.startswith("RIGFLOW_") and name != "RIGFLOW_TEST_SEED"]:
    del os.environ[variable]

if "TEST_ASM" in os.environ:
    runpy.run_path(str(ASM_FOLDER / "sitecustomize.py"))
    os.environ["PYTHONPATH"] = str(ASM_FOLDER)

# On some kernels Go's collector can spin for minutes while the thread that it waits for does not run, and a server then
# answers nothing (nats-server 2.15, two cores; perf shows runtime.bgsweep alone). Small servers need no collection.
os.environ.setdefault("GOGC", "off")
os.environ.setdefault("GOMEMLIMIT", "1GiB")  # from here on they collect all the same

# A shell's job in the background ignores these, and so would the commands that tests start and end by them.
for number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler)

# A machine that is busy with something else is no reason to fail, and nobody's change meets what chance found: the
# examples are the same each time. `pytest --hypothesis-profile exploring` looks for new ones.
hypothesis_settings.register_profile("exploring", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.register_profile(
    "patient", deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
hypothesis_settings.load_profile("patient")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Start the fork server before a test changes the environment: workers have its environment, its home folder too.

    A process that only gives tests to others (pytest -n), or only lists them, needs none.
    """
    if not is_xdist_controller(session) and not session.config.option.collectonly:
        start_fork_server()
        warm_process.install()


def pytest_unconfigure() -> None:
    """Leave nothing behind in the folder for temporary files."""
    remove_kept_folders()


def pytest_collection(session: pytest.Session) -> None:
    """Import the modules of tests, each process of `pytest -n` from another one on.

    pytest rewrites the assertions of a module and keeps the code for other processes. In one order all processes would
    rewrite the same module at the same time, which takes longer than some tests take together.
    """
    worker = getattr(session.config, "workerinput", None)
    if worker is None or session.config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    modules = [path.relative_to(ROOT).with_suffix("") for path in sorted(ROOT.glob("tests/**/test_*.py"))]
    first = int(worker["workerid"].removeprefix("gw")) * len(modules) // int(worker["workercount"])
    for module in (*modules[first:], *modules[:first]):
        with suppress(Exception, pytest.skip.Exception):  # its collection reports what is wrong with it
            importlib.import_module(".".join(module.parts))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """Collect garbage from here on; what is imported stays, and need not be looked through again and again."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run `async def` tests, each in a loop of its own."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    wanted = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in wanted}))
    return True


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator["Guarded"]:
    """A running broker with the roles of deploy/nats/roles.conf."""
    from tests.guarded import guarded_broker  # not before TEST_ASM has had its effect

    with guarded_broker(tmp_path) as broker:
        yield broker


@pytest.fixture
def server() -> Iterator[EmbeddedServer]:
    """A running nats-server of this test's own."""
    server = EmbeddedServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def settings(server: EmbeddedServer) -> Settings:
    """Settings that reach `server`, with small queues; no lease ends during a test, however slow the machine is."""
    return Settings(nats=server.url, queue_bytes=4 * MIB, results_bytes=64 * MIB, ack_wait_s=300.0, tuning_s=0.0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 64 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"cannot mount a small disk: {made.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
