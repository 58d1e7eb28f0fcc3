"""Tells results of earlier runs from media by their names, as of another pipeline in the same folder."""

import os
from collections.abc import Collection
from functools import cached_property

from pipelines.registry import builtin_pipelines


class EarlierResults:
    """Of the files of a folder, those that are called as results: `clip.scenes.png` beside `clip.mp4`."""

    def __init__(self, names: Collection[str], pipeline: str) -> None:
        """`names` are paths in the folder; `pipeline` is one that may not come with rigflow."""
        self._names = names
        self._pipelines = frozenset((*builtin_pipelines(), pipeline))

    def has(self, name: str) -> bool:
        """Whether a file is called as the result of another one that is there: STEM.PIPELINE.*, or NAME.PIPELINE.*"""
        folder, base = os.path.split(name)
        parts = base.split(".")
        for place in range(1, len(parts) - 1):
            if parts[place] in self._pipelines:
                media = os.path.join(folder, ".".join(parts[:place]))
                if media in self._names or media in self._stems:
                    return True
        return False

    @cached_property
    def _stems(self) -> frozenset[str]:
        return frozenset(os.path.splitext(name)[0] for name in self._names)
