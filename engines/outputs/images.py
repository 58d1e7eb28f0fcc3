"""Writes a file of each image.

The arrays of a part's result are `data [bytes] uint8`, all files, and `sizes [N] int32`, of good items only.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import numpy as np

from engines.encoding import Encoded
from engines.files import PartFile
from engines.outputs.colour import KEEP_PICTURES
from engines.outputs.names import clean
from engines.part import Array, Part, Tick, no_tick
from schemas.errors import OutputError, PipelineError
from schemas.media import Item
from schemas.parts import PartMeta
from schemas.segments import Fragment
from schemas.wire import Buffer

Channels: TypeAlias = Array | tuple[Array, ...]
"""A picture, `[H, W]` or `[H, W, C]` uint8, or its channels, `[H, W]` uint8 each."""


def encode_images(pictures: Iterable[Channels], encode: Callable[[Channels], bytes], tick: Tick = no_tick) -> Encoded:
    """Encode a file of each picture."""
    files = []
    for picture in pictures:
        files.append(encode(picture))
        tick()
    return join_files(files)


def join_files(files: Sequence[bytes]) -> Encoded:
    """Return a part's result, whose files an `ImageFolder` writes."""
    return Encoded(
        {
            "data": np.frombuffer(b"".join(files), dtype=np.uint8),
            "sizes": np.array([len(file) for file in files], dtype=np.int32),
        }
    )


def files_in(arrays: Mapping[str, Array]) -> Iterator[Buffer]:
    """Yield the files of a part's result. Raises OutputError if it does not have them whole."""
    data, sizes = arrays["data"].data, arrays["sizes"].tolist()
    if any(size < 0 for size in sizes) or sum(sizes) != len(data):
        raise OutputError("a result does not have the bytes of its files", "run the job again")
    for size in sizes:
        yield data[:size]
        data = data[size:]


def channels_of(part: Part, format_name: str = "video") -> Iterator[Channels]:
    """Yield each picture of a part of images: of `plane0` ... (grey, RGB or RGBA), or of `pixels`.

    Raises PipelineError if there is neither, or if they are no pictures of uint8.
    """
    planes = [part.array(name) for name in ("plane0", "plane1", "plane2", "plane3") if name in part.arrays]
    if not planes and "pixels" not in part.arrays and part.meta.pts:
        raise PipelineError(f"format {format_name} needs `plane0` or `pixels`", KEEP_PICTURES)
    if not part.meta.pts:
        return
    if len({plane.shape for plane in planes}) > 1:
        shapes = ", ".join(str(list(plane.shape)) for plane in planes)
        raise PipelineError(f"planes of the shapes {shapes} are no picture", "a model must scale all planes alike")
    name, pictures = ("plane0", planes[0]) if planes else ("pixels", part.array("pixels"))
    if pictures.dtype != np.uint8:
        raise PipelineError(f"`{name}` is {pictures.dtype}", f"format {format_name} takes uint8; round in the model")
    shape = pictures.shape
    if 0 in shape or not (len(shape) == 3 or (len(shape) == 4 and len(planes) < 2 and shape[3] <= 4)):
        hint = f"format {format_name} takes images [N, H, W] or [N, H, W, 1 to 4]"
        raise PipelineError(f"`{name}` has shape {list(shape)}", hint)
    yield from zip(*planes, strict=True) if planes else pictures


class ImageFolder:
    """`<target>.png` for a single image, `<target>/<name>.png` for several; each file gets its name at `close`.

    `suffix` replaces png. Without `alone`, a single image lies in the folder, too.
    """

    def __init__(self, target: Path, suffix: str = "png", alone: bool = True) -> None:
        self.notes: list[str] = []
        self._target = target
        self._suffix = suffix
        self._alone = alone
        self._files: list[PartFile] = []
        self._names = NamedFiles(target, suffix)

    def add(self, meta: PartMeta, arrays: Mapping[str, Array], facts: Mapping[str, Any]) -> None:
        """Write the part's images."""
        stems = [stem_of(item) for item in meta.items if not item.error]
        key = meta.key
        single = self._alone and key.final and key.last and (key.segment, key.part, len(meta.items)) == (0, 0, 1)
        for stem, data in zip(stems, files_in(arrays), strict=True):
            whole = self._target.with_name(f"{self._target.name}.{self._suffix}")
            self._write(whole if single else self._names.path(stem), data)

    def add_tracks(self, fragment: Fragment, arrays: Mapping[str, Array]) -> None:
        """Ignore tracks: images have no sound."""

    def close(self) -> list[Path]:
        """Give all files their names."""
        return [file.commit() for file in self._files]

    def abort(self) -> None:
        """Remove the unnamed files, and the folder if it is then empty."""
        for file in self._files:
            file.discard()
        self._names.remove_folder()

    def _write(self, path: Path, data: Buffer) -> None:
        file = PartFile.create(path)
        self._files.append(file)
        file.write(data)
        file.seal()


class NamedFiles:
    """The paths of files of items, `<target>/<name>.<suffix>`. Names are not trusted: only the last part is used."""

    def __init__(self, target: Path, suffix: str) -> None:
        self._target, self._suffix = target, suffix
        self._made_folder = not target.exists()
        self._taken: set[str] = set()
        self._numbers: Counter[str] = Counter()  # the last number that each name got

    def remove_folder(self) -> None:
        """Remove the folder if it is empty, and was not there at the beginning."""
        if self._made_folder and self._target.is_dir() and not any(self._target.iterdir()):
            self._target.rmdir()

    def path(self, stem: str) -> Path:
        """Return the path of an item's file: each path once. `stem`: as `stem_of` returns it."""
        stem = _last_part(stem).name or "unnamed"
        stem = clean(stem) if stem.strip(".") else stem
        unique = stem
        while unique in self._taken:
            self._numbers[stem] += 1
            unique = f"{stem}-{self._numbers[stem] + 1}"
        self._taken.add(unique)
        return self._target / f"{unique}.{self._suffix}"


def _last_part(name: str) -> PurePosixPath:
    return PurePosixPath(PurePosixPath(name.replace("\\", "/").replace("\0", "")).name)


def stem_of(item: Item) -> str:
    """Return what the file of an item is called: a file's name without its suffix, or the name of a line."""
    return item.name if item.line else _last_part(item.name).stem
