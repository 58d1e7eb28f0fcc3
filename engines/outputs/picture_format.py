"""Shared by the formats whose results are pictures: one film of video, a file of each image."""

from pathlib import Path
from typing import Literal, TypeVar

from engines.encoding import Assembler, PictureEncoder, VideoOptions
from engines.outputs.base import BaseFormat
from engines.outputs.images import ImageFolder
from engines.outputs.mux import VideoFile
from engines.outputs.software import Software
from schemas.media import MediaInfo

OptionsT = TypeVar("OptionsT", bound=VideoOptions)


class PictureFormat(BaseFormat[OptionsT]):
    """Base of those formats; a format adds `check` and `encode`."""

    @property
    def each(self) -> tuple[str, ...]:
        """Return the suffix of its pictures."""
        return (self._options.suffix,)

    @property
    def sound(self) -> Literal["copy", "aac"]:
        """Return the option `sound`."""
        return self._options.sound

    @property
    def encoder(self) -> PictureEncoder:
        """Return the encoder of films: the worker's, by default that of the host."""
        return self._encoder or Software()

    def assemble(self, target: Path, media: MediaInfo) -> Assembler:
        """Write `<target>.mp4` from the first part on, or the folder `<target>` of images."""
        return VideoFile(target, media) if media.timed else ImageFolder(target, self._options.suffix)
