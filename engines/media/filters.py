"""FFmpeg's filters that give one frame for one."""

from fractions import Fraction

import av
from av.filter import Graph
from av.video.format import VideoFormat


class FrameFilter:
    """A chain of filters, each `(name, options)`, for frames of any shape. Not thread-safe.

    `waits`: the chain keeps a frame until the next one comes, so each frame has a graph of its own.
    """

    def __init__(self, *chain: tuple[str, str], waits: bool = False) -> None:
        self._chain = chain
        self._waits = waits
        self._shape: tuple[int, int, str] | None = None
        self._graph = Graph()

    def __call__(self, frame: av.VideoFrame) -> av.VideoFrame:
        """What the chain makes of a frame; one that only changes what a frame says does not copy its pixels."""
        shape = frame.width, frame.height, frame.format.name
        if self._waits or shape != self._shape:
            self._shape, self._graph = shape, self._build(*shape)
        self._graph.push(frame)
        if self._waits:
            self._graph.push(None)
        made = self._graph.pull()
        assert isinstance(made, av.VideoFrame)
        return made

    def _build(self, width: int, height: int, layout: str) -> Graph:
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(width=width, height=height, format=VideoFormat(layout), time_base=Fraction(1))
        graph.link_nodes(source, *(graph.add(name, options) for name, options in self._chain), graph.add("buffersink"))
        graph.configure()
        return graph
