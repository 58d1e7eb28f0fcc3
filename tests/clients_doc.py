"""The programs of docs/clients.md: their text as it stands, and how each language runs it."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import av
import numpy as np

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "clients.md"
JS_PACKAGES = ROOT / ".venv" / "js" / "node_modules"  # by `make test-js`
NO_NAMES: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Language:
    """One language of the document: the blocks of its fence, whose lines that begin with `call` are calls."""

    fence: str
    call: str
    suffix: str
    command: tuple[str, ...]

    @property
    def blocks(self) -> list[str]:
        """The blocks as they stand."""
        return re.findall(rf"^```{self.fence}\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)

    @property
    def calls(self) -> list[str]:
        """The calls in the blocks, in order."""
        return [line for block in self.blocks for line in block.splitlines() if line.startswith(self.call)]

    @property
    def functions(self) -> str:
        """All blocks without their calls."""
        lines = "\n".join(self.blocks).splitlines()
        return "\n".join(line for line in lines if not line.startswith(self.call))

    def run(self, call: str, folder: Path, environment: dict[str, str], names: Mapping[str, str] = NO_NAMES) -> str:
        """Run the blocks with this call in a folder, with other `names` in them; what it writes."""
        process = self.start(call, folder, environment, names)
        said, complaint = process.communicate(timeout=100)
        assert process.returncode == 0, complaint
        assert not complaint
        return said

    def start(
        self, call: str, folder: Path, environment: dict[str, str], names: Mapping[str, str] = NO_NAMES
    ) -> "subprocess.Popen[str]":
        """`run` in the background."""
        name, program = f"example{self.suffix}", self.functions
        for ours, theirs in names.items():
            assert ours in program
            program = program.replace(ours, theirs)
        (folder / name).write_text(f"{program}\n\n{call}\n")
        if self.suffix == ".mjs" and not (folder / "node_modules").exists():
            (folder / "node_modules").symlink_to(JS_PACKAGES)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen([*self.command, name], cwd=folder, env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


PYTHON = Language("python", "print(asyncio.run(", ".py", (sys.executable, "-W", "error"))
JAVASCRIPT = Language("js", "console.log(await ", ".mjs", (shutil.which("node") or "node",))


def noise_picture(side: int = 1024) -> bytes:
    """Noise does not compress: a picture of 3 MB becomes one of 12 MB."""
    noise = np.random.default_rng(1).integers(0, 256, (side, side, 3), dtype=np.uint8)
    context = av.CodecContext.create("png", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = side, side, "rgb24"
    context.time_base = 1
    return bytes(context.encode(av.VideoFrame.from_ndarray(noise, "rgb24"))[0])


def noise_film(path: Path, frames: int = 40) -> Path:
    """A film of noise without loss: 300 kB a frame."""
    random = np.random.default_rng(2)
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 512, 384, "yuv420p"
        for _ in range(frames):
            planes = random.integers(0, 256, (576, 512), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, "yuv420p")))
        container.mux(stream.encode())
    return path


def lines(said: str) -> Sequence[str]:
    """What a program wrote."""
    return said.splitlines()
