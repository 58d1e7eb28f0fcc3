"""Passwords of embedded brokers on this machine: files that only their owner can read, found by the broker's port.

`rigflow up`, `run` and `watch` write one for the broker that they start, so that commands of the same user
reach it by its URL alone, and other users of the machine do not.
"""

import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import IO
from urllib.parse import SplitResult, urlsplit

from schemas.settings import Settings

USER = "rigflow"
PASSWORD = re.compile(r"[A-Za-z0-9_-]{43}")
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
DEFAULT_PORT = 4222


def make_password() -> str:
    """A new password: 32 random bytes in characters that a URL takes."""
    return secrets.token_urlsafe(32)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically. Raises OSError."""
    _write_private(path, text, lock=False).close()


class PublishedPassword:
    """A password where commands of this user find it. Its file is locked until `forget`, or until this process ends.

    So a file without a lock is that of a broker that was killed. A broker that does not answer may be busy, or about to
    start again.
    """

    def __init__(self, port: int, password: str) -> None:
        """Write it; without a home folder nothing is written."""
        self._file: IO[str] | None = None
        with suppress(OSError, RuntimeError):
            folder = _folder()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for known in folder.glob("[0-9]*"):
                _remove_unlocked(known)
            self._path = folder / str(port)
            self._file = _write_private(self._path, password, lock=True)

    def forget(self) -> None:
        """Remove it, unless another broker took the port since."""
        file, self._file = self._file, None
        if file is not None:
            with file, suppress(OSError):
                _remove(self._path, file)


def password_for(urls: str) -> str:
    """The password of the broker at `urls` (comma-separated); empty when it is not one of ours on this machine."""
    for url in urls.split(","):
        parts = _parsed(url)
        if parts.hostname not in LOOPBACK or parts.username is not None:
            return ""
        with suppress(OSError, RuntimeError, ValueError):
            password = (_folder() / str(parts.port or DEFAULT_PORT)).read_text()
            return password if PASSWORD.fullmatch(password) else ""
    return ""


def other_brokers(urls: str) -> list[str]:
    """The URLs of the brokers of this user that run here, where `urls` are of this machine; without those of `urls`."""
    with suppress(OSError, RuntimeError, ValueError):
        parts = [_parsed(url) for url in urls.replace(" ", "").split(",")]
        if all(each.hostname in LOOPBACK for each in parts):
            asked = {str(each.port or DEFAULT_PORT) for each in parts}
            running = sorted(path.name for path in _folder().glob("[0-9]*") if path.name not in asked and _locked(path))
            return [f"nats://127.0.0.1:{port}" for port in running]
    return []


def is_ours(settings: Settings) -> bool:
    """Whether the broker is one that `rigflow up`, `run` or `watch` of this user started here."""
    return not settings.credentials and bool(password_for(settings.nats))


def _parsed(url: str) -> SplitResult:
    return urlsplit(url if "//" in url else f"nats://{url}")


def _folder() -> Path:
    return Path.home() / ".local" / "share" / "rigflow" / "brokers"


def _write_private(path: Path, text: str, lock: bool) -> IO[str]:
    """The written file, still open; with `lock` locked before others can see it, where the file system has locks."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        unfinished.unlink()
    number = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    file = open(number, "w", errors="surrogateescape")  # noqa: SIM115, the caller closes it
    try:
        if lock:
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(text)
        file.flush()
        unfinished.replace(path)
    except BaseException:
        file.close()
        raise
    return file


def _locked(path: Path) -> bool:
    """Whether the owner of a broker's file is there."""
    with open(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _remove_unlocked(path: Path) -> None:
    """Remove the file of a broker whose owner is gone."""
    with suppress(OSError), open(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(path, file)


def _remove(path: Path, file: IO[str]) -> None:
    if os.path.samestat(os.fstat(file.fileno()), path.stat()):
        path.unlink()
