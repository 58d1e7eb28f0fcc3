"""Tells results of earlier runs from media by their names, as of another pipeline in the same folder."""

import os
import re
from collections.abc import Collection
from functools import cached_property
from itertools import chain

from pipelines.registry import builtin_pipelines

_NUMBER = re.compile(r"-\d+$")  # of results beside earlier ones
_TOGETHER = "images"


class EarlierResults:
    """Of the files of a folder, those that are called as results: `clip.scenes.png` where a `clip.mp4` is, too."""

    def __init__(self, names: Collection[str], pipeline: str) -> None:
        """`names` are paths in the folder; `pipeline` is one that may not come with rigflow."""
        self._names = names
        self._pipelines = frozenset((*builtin_pipelines(), pipeline))

    def has(self, name: str) -> bool:
        """Whether a file is called STEM.PIPELINE.* or NAME.PIPELINE.*, by the name of another one in any folder.

        Or is in a folder of results, as images.PIPELINE.
        """
        *folders, base = name.split("/")
        parts = base.split(".")
        return any(
            parts[place] in self._pipelines and _NUMBER.sub("", ".".join(parts[:place])) in self._media
            for place in range(1, len(parts) - 1)
        ) or any(map(self._is_of_results, folders))

    def _is_of_results(self, folder: str) -> bool:
        stem, _, pipeline = folder.partition(".")
        return pipeline in self._pipelines and _NUMBER.sub("", stem) == _TOGETHER

    @cached_property
    def _media(self) -> frozenset[str]:
        """Names without their folders, and those without suffixes."""
        bases = [os.path.basename(name) for name in self._names]
        return frozenset(chain(bases, (os.path.splitext(base)[0] for base in bases)))
