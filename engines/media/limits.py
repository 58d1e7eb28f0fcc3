"""Limits of one media, from the settings of publisher and worker. They are checked before and during decoding."""

from dataclasses import dataclass
from typing import Self

from schemas.errors import ItemTooLarge
from schemas.grid import Clock, Grid
from schemas.settings import Settings

_DEFAULT = Settings()
_SLACK = 128  # pixels a side: FFmpeg checks sizes that it has rounded up for its vector units


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest `pixels` of a picture, `windows` of a job and seconds of a video."""

    pixels: int = _DEFAULT.max_pixels
    windows: int = _DEFAULT.max_windows
    duration_s: float = _DEFAULT.max_duration_s

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the limits in `settings`."""
        return cls(settings.max_pixels, settings.max_windows, settings.max_duration_s)

    def check_pixels(self, what: str, width: int, height: int) -> None:
        """Check the size of a picture. Raises ItemTooLarge."""
        if width * height > self.pixels:
            raise ItemTooLarge(
                f"{what} has {width}x{height} pixels, more than {self.pixels / 1e6:g} million",
                "scale it down or raise the setting max_pixels",
            )

    def check_windows(self, what: str, windows: range) -> None:
        """Check the number of windows of a job. Raises ItemTooLarge."""
        if windows.stop - windows.start > self.windows:  # the length of a range may be too large for `len`
            raise ItemTooLarge(
                f"{what} asks for {windows.stop - windows.start} windows, more than {self.windows}",
                "cut it into files, or raise the setting max_windows",
            )

    def check_duration(self, what: str, duration_s: float) -> None:
        """Check the length of a video. Raises ItemTooLarge."""
        if duration_s > self.duration_s:
            raise ItemTooLarge(
                f"{what} lasts {duration_s:.10g} seconds, more than {self.duration_s:.10g}",
                "cut it into files, or raise the setting max_duration_s",
            )

    def check_frames(self, what: str, grid: Grid, clock: Clock, last: int, frames: int) -> None:
        """Check the length of a media of so many frames, the last one at pts `last`, and the number of its windows.

        Raises ItemTooLarge.
        """
        self.check_duration(what, clock.seconds(last))
        windows = range(frames) if grid.fps is None else grid.windows_until(clock, clock.origin, last)
        self.check_windows(what, windows)


DEFAULT_LIMITS = Limits()


def decoder_options(pixels: int) -> dict[str, str]:
    """Options that make an FFmpeg decoder refuse larger pictures before it allocates memory for them."""
    return {"max_pixels": str(pixels)}


def decoder_pixels(width: int, height: int) -> int:
    """Return the `max_pixels` with which FFmpeg decodes pictures of that size."""
    return (width + _SLACK) * (height + _SLACK)
