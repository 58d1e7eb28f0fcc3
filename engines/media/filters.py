"""Runs FFmpeg's filters that give one frame for one."""

from fractions import Fraction

import av
from av.filter import Graph
from av.video.format import VideoFormat

_MOST_SHAPES = 8


class FrameFilter:
    """A chain of filters, each `(name, options)`, for frames of any shape. Not thread-safe.

    `waits`: the chain keeps a frame until the next one comes, so each frame has a graph of its own.
    """

    def __init__(self, *chain: tuple[str, str], waits: bool = False) -> None:
        self._chain = chain
        self._waits = waits
        self._graphs: dict[tuple[int, int, str], Graph] = {}

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """Filter a frame; a filter that only changes a frame's properties does not copy its pixels."""
        shape = frame.width, frame.height, frame.format.name
        graph = None if self._waits else self._graphs.get(shape)
        if graph is None:
            if len(self._graphs) == _MOST_SHAPES:
                self._graphs.clear()
            graph = self._graphs[shape] = self._build(*shape)
        graph.push(frame)
        if self._waits:
            graph.push(None)
        made = graph.pull()
        assert isinstance(made, av.VideoFrame)
        return made

    def _build(self, width: int, height: int, layout: str) -> Graph:
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(width=width, height=height, format=VideoFormat(layout), time_base=Fraction(1))
        graph.link_nodes(source, *(graph.add(name, options) for name, options in self._chain), graph.add("buffersink"))
        graph.configure()
        return graph
