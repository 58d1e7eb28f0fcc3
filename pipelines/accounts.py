"""Writes the accounts of the operator's file of tenants for nats-server, checks them, and has the server read them."""

import asyncio
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import nkeys

from engines.files import atomic_write, writing
from pipelines.child import nats_server_binary
from pipelines.connection import Connection
from pipelines.roles import configuration
from schemas.errors import BrokerError, UsageError
from schemas.settings import Settings
from schemas.subjects import Names
from schemas.tenants import TenantsFile, parse_tenants, written

CHECK_S = 60.0
RELOAD_S = 60.0  # until the server has read its files again
LOOK_S = 0.05


def read_tenants(path: Path) -> TenantsFile:
    """The file of the operator; one that is not there has no tenant yet. Raises UsageError."""
    try:
        return parse_tenants(path.read_text(), str(path))
    except FileNotFoundError:
        return TenantsFile()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise UsageError(f"{path}: {reason}", "name the file with --file") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other commands of this machine from changing the file of the operator in the block; waits for its turn.

    A folder that cannot be opened is no error here: what writes there reports it.
    """
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


async def write_tenants(
    path: Path, file: TenantsFile, settings: Settings, added: str = "", own_jobs: bool = True
) -> bool:
    """Write the file of the operator, and that of the accounts, and have the running server read them.

    nats-server checks them first, where the file names its configuration: if it refuses them, both stay as they were.
    Connections of users that stay are kept. False where the file does not name the server's process: then nothing read
    them. `own_jobs`: as in the list of tenants. Raises BrokerError, OutputError.
    """
    accounts = path.parent / file.broker.accounts
    with _kept(accounts) as restore:
        try:
            _write_accounts(accounts, path, file, settings, own_jobs)
            if added and file.broker.pid_file:
                await _introduce(accounts, path, file, settings, added)
            write_list(path, file)
        except BaseException:
            restore()
            raise
    return bool(file.broker.pid_file) and (bool(added) or _reload(path, file))


def write_list(path: Path, file: TenantsFile) -> None:
    """Write the file of the operator alone. Raises OutputError."""
    with writing(path):
        atomic_write(path, written(file).encode())


def check_accounts(path: Path, file: TenantsFile, settings: Settings) -> None:
    """Have nats-server check the accounts of a file, where it names its configuration; what is written stays as it is.

    Raises BrokerError, OutputError.
    """
    accounts = path.parent / file.broker.accounts
    with _kept(accounts) as restore:
        try:
            _write_accounts(accounts, path, file, settings)
        finally:
            restore()


@contextmanager
def _kept(accounts: Path) -> Iterator[Callable[[], None]]:
    """In the block, a function that brings back what the file is now. It needs no room: the disk may be full then."""
    kept = accounts.with_name(f".{accounts.name}.before")
    kept.unlink(missing_ok=True)  # of a command that was killed
    if accounts.exists():
        with writing(kept):
            shutil.copy2(accounts, kept)
    try:
        yield lambda: os.replace(kept, accounts) if kept.exists() else accounts.unlink(missing_ok=True)
    finally:
        kept.unlink(missing_ok=True)


def _write_accounts(accounts: Path, path: Path, file: TenantsFile, settings: Settings, own_jobs: bool = True) -> None:
    text = configuration(Names(settings.prefix, frozenset(file.tenant), own_jobs), settings.tenant, file)
    with writing(accounts):
        atomic_write(accounts, text.encode())
    if file.broker.config:
        check(path.parent / file.broker.config)


async def _introduce(accounts: Path, path: Path, file: TenantsFile, settings: Settings, added: str) -> None:
    """Have the server read its files twice: only the second time does it connect the imports of a new account.

    It does not say when it has read them. So the new account has a user of ours meanwhile, who is let in after the
    first time, and no more after the second.
    """
    with tempfile.TemporaryDirectory() as folder:
        seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
        place = Path(folder, "probe.nk")
        place.touch(0o600)
        place.write_bytes(seed)
        probe = settings.model_copy(update={"credentials": str(place), "inbox": "_INBOX"})
        tenant = file.tenant[added]
        ours = nkeys.from_seed(bytearray(seed)).public_key.decode()
        with_probe = tenant.model_copy(update={"users": (*tenant.users, ours)})
        first = file.model_copy(update={"tenant": {**file.tenant, added: with_probe}})
        for each, admitted in ((first, True), (file, False)):
            _write_accounts(accounts, path, each, settings)
            _reload(path, file)
            await _until(probe, admitted)


async def _until(probe: Settings, admitted: bool) -> None:
    """Wait until the server lets a user in, or no more. Raises BrokerError when it takes too long."""
    try:
        async with asyncio.timeout(RELOAD_S):
            while await _admits(probe) is not admitted:  # noqa: ASYNC110 - the server sends no event
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise BrokerError("nats-server does not take its new accounts", "its log says why") from None


async def _admits(probe: Settings) -> bool:
    try:
        connection = await Connection.open(probe, "rigflow-tenants")
    except BrokerError:
        return False
    await connection.close()
    return True


def check(config: Path) -> None:
    """Have nats-server read a configuration without serving it. Raises BrokerError with what it says."""
    command = [nats_server_binary(), "-t", "-c", str(config)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_S, check=False)
    if checked.returncode:
        said = (checked.stderr or checked.stdout).strip().splitlines()
        what = f"nats-server refuses {config}: {said[-1] if said else 'without a reason'}"
        raise BrokerError(what, "nothing was changed; keys that come from NKEY_... must be set here, too")


def _reload(path: Path, file: TenantsFile) -> bool:
    place = path.parent / file.broker.pid_file
    try:
        os.kill(int(place.read_text()), signal.SIGHUP)
    except (OSError, ValueError) as error:
        what = f"nats-server could not be told to read its files again: {place}: {error}"
        raise BrokerError(what, f"correct pid_file in {path}, and give the command again") from error
    return True
