"""People at work in a folder that is watched, and what they left there."""

import random
import shutil
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from tests.clips import Clip, generated, still

PAUSE_S = 0.15  # between the pieces of a file that is written slowly


class People:
    """Whoever works in the folder: copies, moves, renames, writes slowly, writes again."""

    def __init__(self, folder: Path, outside: Path, chance: random.Random) -> None:
        self.folder = folder
        self.did: list[str] = []
        self.stamps: dict[str, tuple[int, ...]] = {}  # of all files, as we left them
        self.longest_pause_s = 0.0
        self._outside = outside
        self._chance = chance
        self._made = 0
        for name in (folder, outside, folder / "deep"):
            name.mkdir()

    def act(self) -> None:
        """Do something."""
        makers = (self._copy, self._move_in, self._write_slowly, self._finish_download)
        changers = (self._rename, self._copy_again, self._write_again)
        act: Callable[[], str] = self._chance.choice(makers + (changers if self.stamps else ()))
        self.did.append(f"{act.__name__.strip('_')} {act()}")

    def _new(self) -> tuple[str, bytes]:
        """A name that was never there, and a content that was never there."""
        self._made += 1
        if self._chance.random() < 0.3:
            clip = Clip(frames=self._chance.randrange(10, 60), seed=self._made)
            return f"clip {self._made}.mp4", generated(clip).read_bytes()
        return f"deep/{self._made}.png" if self._made % 3 else f"{self._made}.PNG", still("png", seed=self._made)

    def _copy(self) -> str:
        name, content = self._new()
        began_s = time.monotonic()
        (self.folder / name).write_bytes(content)
        self._paused(began_s)
        return self.left(name)

    def _move_in(self) -> str:
        name, content = self._new()
        beside = self._outside / Path(name).name
        beside.write_bytes(content)
        beside.rename(self.folder / name)
        return self.left(name)

    def _write_slowly(self) -> str:
        name, content = self._new()
        return self._slowly(name, content)

    def _finish_download(self) -> str:
        name, content = self._new()
        unfinished = self.folder / f"{name}.part"
        unfinished.write_bytes(content[: len(content) // 2])
        time.sleep(PAUSE_S)
        unfinished.write_bytes(content)
        unfinished.rename(self.folder / name)
        return self.left(name)

    def _rename(self) -> str:
        before, after = self._any(), f"deep/renamed {len(self.did)}"
        after += Path(before).suffix
        (self.folder / before).rename(self.folder / after)
        del self.stamps[before]
        return f"{before} -> {self.left(after)}"

    def _copy_again(self) -> str:
        before = self._any()
        after = f"copy {len(self.did)}{Path(before).suffix}"
        began_s = time.monotonic()
        shutil.copy2(self.folder / before, self.folder / after)
        self._paused(began_s)
        return f"{before} -> {self.left(after)}"

    def _write_again(self) -> str:
        name = self._any()
        made, content = self._new()
        del self.stamps[name]
        if Path(made).suffix.lower() != Path(name).suffix.lower():
            (self.folder / name).unlink()
            name = made
        return self._slowly(name, content)

    def _any(self) -> str:
        return self._chance.choice(sorted(self.stamps))

    def _slowly(self, name: str, content: bytes) -> str:
        with (self.folder / name).open("wb") as file:
            for part in range(4):
                began_s = time.monotonic()
                file.write(content[part * len(content) // 4 : (part + 1) * len(content) // 4])
                file.flush()
                time.sleep(PAUSE_S)
                self._paused(began_s)
        return self.left(name)

    def _paused(self, began_s: float) -> None:
        """A file was incomplete since then."""
        self.longest_pause_s = max(self.longest_pause_s, time.monotonic() - began_s)

    def left(self, name: str) -> str:
        """Remember a file as it is now."""
        self.stamps[name] = stamp_of(self.folder / name)
        return name

    def files(self) -> dict[str, tuple[int, ...]]:
        """All files that are there now."""
        paths = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path.relative_to(self.folder)): stamp_of(path) for path in paths}

    def digests(self) -> dict[str, str]:
        """sha256 of every file by name."""
        return {name: sha256((self.folder / name).read_bytes()).hexdigest() for name in self.stamps}


def stamp_of(path: Path) -> tuple[int, ...]:
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_mode, int(sha256(path.read_bytes()).hexdigest(), 16)
