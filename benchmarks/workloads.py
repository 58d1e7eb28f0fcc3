"""What the benchmarks work on: one long video, many images, one short clip, all made from a real clip."""

from pathlib import Path

import av

from tests.clips import real_clip


def looped(path: Path, seconds: float, source: str = "bigbuckbunny") -> Path:
    """A real clip looped to at least `seconds` by stream copy, picture only."""
    if path.exists():
        return path
    with av.open(real_clip(source)) as given, av.open(path, "w") as out:
        stream = given.streams.video[0]
        copy = out.add_stream_from_template(stream)
        packets = [packet for packet in given.demux(stream) if packet.size]
        assert stream.duration is not None
        length = stream.duration
        assert stream.time_base is not None
        for turn in range(int(seconds / float(length * stream.time_base)) + 1):
            for packet in packets:
                assert packet.pts is not None
                assert packet.dts is not None
                again = av.Packet(bytes(packet))
                again.pts, again.dts = packet.pts + turn * length, packet.dts + turn * length
                again.time_base, again.is_keyframe = stream.time_base, packet.is_keyframe
                again.stream = copy
                out.mux(again)
    return path


def images(folder: Path, count: int) -> list[Path]:
    """`count` jpegs of a real clip's frames, 1280x720."""
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{number:05d}.jpg" for number in range(count)]
    if paths[-1].exists():
        return paths
    with av.open(real_clip("bigbuckbunny")) as given:
        pictures = []
        for frame in given.decode(video=0):
            encoder = av.CodecContext.create("mjpeg", "w")
            encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
            encoder.time_base = given.streams.video[0].time_base
            encoder.options = {"qscale": "4"}
            pictures.append(
                b"".join(bytes(p) for p in [*encoder.encode(frame.reformat(format="yuvj420p")), *encoder.encode()])
            )
    for number, path in enumerate(paths):
        path.write_bytes(pictures[number % len(pictures)])
    return paths
