"""Passwords of embedded brokers on this machine: files that only their owner can read, found by the broker's port.

`rigflow up`, `run` and `watch` write one for the broker that they start, so that commands of the same user
reach it by its URL alone, and other users of the machine do not.
"""

import os
import re
import secrets
import socket
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

USER = "rigflow"
PASSWORD = re.compile(r"[A-Za-z0-9_-]{43}")
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
DEFAULT_PORT = 4222
LISTENS_S = 0.2


def make_password() -> str:
    """A new password: 32 random bytes in characters that a URL takes."""
    return secrets.token_urlsafe(32)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, atomically. Raises OSError."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with suppress(FileNotFoundError):
        unfinished.unlink()
    with open(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", errors="surrogateescape") as file:
        file.write(text)
    unfinished.replace(path)


def publish_password(port: int, password: str) -> None:
    """Write the password where commands of this user find it; without a home folder nothing is written."""
    with suppress(OSError, RuntimeError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for known in folder.glob("[0-9]*"):  # of brokers that were killed
            if not _listens(int(known.name)):
                known.unlink()
        write_private(folder / str(port), password)


def forget_password(port: int, password: str) -> None:
    """Remove what `publish_password` wrote, unless another broker took the port since."""
    with suppress(OSError, RuntimeError):
        file = _folder() / str(port)
        if file.read_text() == password:
            file.unlink()


def password_for(urls: str) -> str:
    """The password of the broker at `urls` (comma-separated); empty when it is not one of ours on this machine."""
    for url in urls.split(","):
        parts = urlsplit(url if "//" in url else f"nats://{url}")
        if parts.hostname not in LOOPBACK or parts.username is not None:
            return ""
        with suppress(OSError, RuntimeError, ValueError):
            password = (_folder() / str(parts.port or DEFAULT_PORT)).read_text()
            return password if PASSWORD.fullmatch(password) else ""
    return ""


def _folder() -> Path:
    return Path.home() / ".local" / "share" / "rigflow" / "brokers"


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), LISTENS_S).close()
    except OSError:
        return False
    return True
