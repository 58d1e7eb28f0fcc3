"""The embedded broker: a real nats-server as a child process, on a store that only one rigflow uses at a time."""

import errno
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import IO

from engines.files import delete_files
from engines.scratch import ScratchFolder
from pipelines.child import nats_server_binary, server_environment, tied_to_us
from pipelines.local_access import PASSWORD, USER, PublishedPassword, make_password, write_private
from pipelines.store_lock import check_room, lock_store, open_private, temporary_folder
from schemas.errors import BrokerError, StoreError, UsageError
from schemas.settings import Durability, Settings

MAX_PAYLOAD = 8 << 20  # the most that nats-server takes without a warning
READY_S = 60.0  # a large store takes long to recover, and so does a busy machine
STOP_S = 5.0
HEALTH_S = 5.0  # for the answer to a health request
MIN_FREE_BYTES = 2 * MAX_PAYLOAD  # free disk space below which the server is not started


class EmbeddedServer:
    """One nats-server with JetStream on the loopback: `start`, `stop`, and `restart` on the same port after a death.

    `store` None means a temporary folder that `stop` removes. `sync` is nats-server's `sync_interval` ("always", say);
    without it what was acked survives the death of processes, and a power failure may take the last two minutes.
    `guarded`: clients need its password; commands of the same user on this machine find it by the port.
    Only its owner can read the store.
    """

    def __init__(
        self,
        store: Path | None = None,
        port: int = 0,
        max_store_bytes: int = 64 << 30,
        sync: str | None = None,
        host: str = "127.0.0.1",
        guarded: bool = False,
    ) -> None:
        self._temporary: ScratchFolder | None = None
        self._folder = store
        self._port = port
        self._max_store_bytes = max_store_bytes
        self._sync = sync
        self._host = host
        self._lock: IO[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = threading.Event()
        self._health = ""
        self._guarded, self._unwanted = guarded, False
        self._password = ""
        self._published: PublishedPassword | None = None

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"nats://{self._host}:{self._port}"

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None, "start first"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the server runs."""
        return self._process is not None and not self._ended.is_set()

    @property
    def store(self) -> Path:
        """The folder of its store."""
        assert self._folder is not None, "start first"
        return self._folder

    @property
    def log(self) -> Path:
        """The path of the server's log."""
        return self.store / "nats-server.log"

    @property
    def password_file(self) -> Path:
        """Where the password of a guarded server is; the setting `credentials` takes it."""
        return self.store / "password"

    def start(self) -> None:
        """Lock the store and start; returns when clients can connect. Raises StoreError, BrokerError."""
        if self._folder is None:
            self._temporary = temporary_folder()
            self._folder = self._temporary.path
        if is_new := not (self.store.is_dir() and any(self.store.iterdir())):
            self._check_port()
        self._lock = lock_store(self.store)
        try:
            check_room(self.store, MIN_FREE_BYTES)
            if self._guarded:
                self._password = self._stored_password()
            self._launch()
        except BaseException:
            folder = self.store
            self.stop()
            if is_new:
                delete_files((folder / ".lock", folder / "password"), folder)
            raise
        if self._guarded:
            self._published = PublishedPassword(self._port, self._password)

    def give_up(self) -> None:
        """Have a `start` that is under way in another thread end at once, with an error."""
        self._unwanted = True

    def restart(self) -> None:
        """End it if it lives, and start again on the same port and store, so that clients reconnect.

        Raises BrokerError.
        """
        assert self._lock is not None, "start first"
        if self.alive:
            self._end(signal.SIGTERM)
        self._launch()

    @property
    def unwritable(self) -> str:
        """The server's error about a stream that it cannot write to; empty when there is none, or it does not answer.

        The server never tries again by itself, not even when a full disk has free space again: call `restart`.
        """
        import urllib.error
        import urllib.request

        try:
            urllib.request.urlopen(self._health, timeout=HEALTH_S).close()
        except urllib.error.HTTPError as error:
            with error:
                status = str(json.load(error).get("error", ""))
            return status if "write error" in status else ""
        except (OSError, ValueError):
            pass
        return ""

    @property
    def has_free_space(self) -> bool:
        """Whether the store's disk has `MIN_FREE_BYTES` free."""
        return shutil.disk_usage(self.store).free >= MIN_FREE_BYTES

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the server has ended; False when it still runs after `timeout_s`."""
        return self._ended.wait(timeout_s)

    def stop(self) -> None:
        """End the server and unlock its store; a temporary store is removed."""
        if self.alive:
            self._end(signal.SIGKILL if self._temporary else signal.SIGTERM)  # no flush of what is removed next
        if self._published is not None:
            self._published.forget()
            self._published = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._temporary is not None:
            self._temporary.remove()
            self._temporary = self._folder = None

    def kill(self) -> None:
        """Kill the server at once, as in a crash."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if not self._ended.wait(STOP_S):
            self._process.kill()
            self._ended.wait()

    def _launch(self) -> None:
        assert not self.alive, "it runs already"
        for stale in self.store.glob("*.ports"):
            stale.unlink()
        config = self.store / "nats-server.conf"
        write_private(config, self._config())
        logged = self.log.stat().st_size if self.log.exists() else 0
        self._ended.clear()
        spawned: Future[subprocess.Popen[bytes]] = Future()
        command = tied_to_us([nats_server_binary(), "-c", str(config)])
        threading.Thread(target=self._run, args=(command, spawned), name="nats-server", daemon=True).start()
        self._process = spawned.result()
        self._await_ready(logged)

    def _stored_password(self) -> str:
        """The password that the store was started with before, or a new one: clients that wait reconnect with it."""
        try:
            known = self.password_file.read_text() if self.password_file.exists() else ""
            password = known if PASSWORD.fullmatch(known) else make_password()
            write_private(self.password_file, password)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise StoreError(f"{self.password_file}: {reason}", "choose another folder with --store") from error
        return password

    def _run(self, command: list[str], spawned: "Future[subprocess.Popen[bytes]]") -> None:
        """Start the server and wait for its end. The kernel kills the server when this thread or process ends."""
        assert self._lock is not None
        try:
            with open(self.log, "ab", opener=open_private) as log:
                process = subprocess.Popen(
                    command,
                    env=server_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    umask=0o077,  # of all that it writes
                    start_new_session=True,  # Ctrl-C does not reach it: this process stops it last
                    pass_fds=(self._lock.fileno(),),  # the store stays locked until the server itself is gone
                )
        except OSError as error:
            spawned.set_exception(BrokerError(f"cannot run {command[0]}: {error.strerror}"))
            return
        spawned.set_result(process)
        process.wait()
        self._ended.set()

    def _await_ready(self, logged: int) -> None:
        ports = self.store / f"nats-server_{self.pid}.ports"
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline and not self._unwanted:
            if self._ended.is_set():
                raise self._why_it_ended(logged)
            if ports.exists() and (text := ports.read_text()):
                listening = json.loads(text)
                self._port = int(listening["nats"][0].rsplit(":", 1)[1])
                self._health = f"{listening['monitoring'][0]}/healthz"
                return
            time.sleep(0.002)  # not in a wait for an event, where a KeyboardInterrupt may leave a lock taken
        self.kill()
        raise BrokerError(f"nats-server was not ready within {READY_S:.0f} s", f"see {self.log}")

    def _check_port(self) -> None:
        """Raise BrokerError if another program has the port, before anything is written."""
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((self._host, self._port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise self._port_taken() from error
                raise BrokerError(f"port {self._port}: {error.strerror}", "choose another --port") from error

    def _port_taken(self) -> BrokerError:
        return BrokerError(f"port {self._port} is taken", "choose another --port, or 0 for any that is free")

    def _why_it_ended(self, logged: int) -> BrokerError:
        lines = self.log.read_bytes()[logged:].decode(errors="replace").strip().splitlines()
        if any("address already in use" in line for line in lines):
            return self._port_taken()
        last_line = lines[-1] if lines else "it wrote no log"
        return BrokerError(f"nats-server did not start ({last_line})", f"see {self.log}")

    def _config(self) -> str:
        # nats-server's configuration has no \\u escapes
        store, log = (json.dumps(str(path), ensure_ascii=False) for path in (self.store, self.log))
        sync = f"sync_interval: {self._sync}" if self._sync else ""
        users = f'authorization {{ user: "{USER}", password: "{self._password}" }}' if self._password else ""
        return f"""\
server_name: rigflow
host: {self._host}
port: {self._port or -1}
http: "127.0.0.1:-1"
ports_file_dir: {store}
log_file: {log}
logfile_size_limit: 4MB
logfile_max_num: 2
max_payload: {MAX_PAYLOAD}
{users}
jetstream {{
  store_dir: {store}
  max_mem: 64MB
  max_file: {self._max_store_bytes}
  {sync}
}}
"""


def embedded(settings: Settings) -> EmbeddedServer:
    """The broker that settings ask for, on this machine. Raises UsageError when they ask for a cluster."""
    if settings.durability is Durability.CLUSTER:
        raise UsageError(
            "durability cluster: three brokers on three machines, and none is named",
            "start them as docs/operations.md shows, and name them with --nats",
        )
    sync = "always" if settings.durability is Durability.POWER else None
    store = Path(settings.store) if settings.store else None
    return EmbeddedServer(store, settings.port, settings.store_bytes, sync, guarded=True)
