"""Tells results of earlier runs from media by their names, as of another pipeline in the same folder."""

import os
from collections.abc import Collection
from functools import cached_property
from itertools import chain

from pipelines.registry import builtin_pipelines


class EarlierResults:
    """Of the files of a folder, those that are called as results: `clip.scenes.png` where a `clip.mp4` is, too."""

    def __init__(self, names: Collection[str], pipeline: str) -> None:
        """`names` are paths in the folder; `pipeline` is one that may not come with rigflow."""
        self._names = names
        self._pipelines = frozenset((*builtin_pipelines(), pipeline))

    def has(self, name: str) -> bool:
        """Whether a file is called STEM.PIPELINE.* or NAME.PIPELINE.*, by the name of another one in any folder."""
        parts = os.path.basename(name).split(".")
        return any(
            parts[place] in self._pipelines and ".".join(parts[:place]) in self._media
            for place in range(1, len(parts) - 1)
        )

    @cached_property
    def _media(self) -> frozenset[str]:
        """Names without their folders, and those without suffixes."""
        bases = [os.path.basename(name) for name in self._names]
        return frozenset(chain(bases, (os.path.splitext(base)[0] for base in bases)))
