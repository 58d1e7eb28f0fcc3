"""The pipelines detect and detect-video: numbers of tracks over segments, equal for every fleet."""

import csv
import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import av
import numpy as np
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from engines.outputs.draw import class_colour
from tests.cases import Array, Fleets, fleets, lines, put, whole_and_killed
from tests.cli import rigflow
from tests.onnx_graphs import FLOAT, model_of, value

STAGES = (("decode", "resize"), ("infer",), ("encode", "split", "collect"))
SIZE = HEIGHT, WIDTH = 96, 160
FRAMES, HIDDEN, LATER = 60, range(20, 26), 10  # red is hidden for a while, and green comes later
LABELS = ("red", "green")
DRAWN = "track = true, lines = true"
CARD = f"""
    [[inputs]]
    name = "images"
    scale = 1.0
    fit = "stretch"
    [[heads]]
    kind = "detect"
    decoder = "end2end"
    labels = {list(LABELS)}
"""


def finder() -> bytes:
    """`images [n, 3, H, W]` -> `boxes [n, 2, 6]`: x1, y1, x2, y2, score, class of what is red, and of what is green."""
    nodes, kept = [], []

    def op(kind: str, *given: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, given, [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    def constant(array: Array) -> str:
        kept.append(numpy_helper.from_array(array, f"c{len(kept)}"))
        return f"c{len(kept) - 1}"

    rows = []
    for number in range(2):
        channel = op("Gather", "images", constant(np.array(number)), axis=1)
        there = op("Cast", op("Greater", channel, constant(np.float32(200))), to=FLOAT)
        ends = []
        for axis, length in ((1, WIDTH), (2, HEIGHT)):  # over rows: where from left to right; over columns: up to down
            places = op("ReduceMax", there, axes=[axis], keepdims=0)
            at = constant(np.arange(length, dtype=np.float32))
            absent = op("Mul", op("Sub", constant(np.float32(1)), places), constant(np.float32(1e6)))
            first = op("ReduceMin", op("Add", absent, at), axes=[1], keepdims=1)
            after = op("Mul", places, op("Add", at, constant(np.float32(1))))
            ends.append((first, op("ReduceMax", after, axes=[1], keepdims=1)))
        (left, right), (top, bottom) = ends
        score = op("Mul", op("ReduceMax", places, axes=[1], keepdims=1), constant(np.float32(0.9)))
        kind = op("Mul", op("Mul", score, constant(np.float32(0))), constant(np.float32(0)))
        kind = op("Add", kind, constant(np.float32(number)))
        rows.append(op("Concat", left, top, right, bottom, score, kind, axis=1))
    table = op("Concat", *(op("Unsqueeze", row, constant(np.array([1]))) for row in rows), axis=1)
    nodes.append(helper.make_node("Identity", [table], ["boxes"]))
    shapes = [value("images", FLOAT, ["n", 3, *SIZE])], [value("boxes", FLOAT, ["n", 2, 6])]
    return model_of(nodes, *shapes, tuple(kept))


def squares(number: int) -> dict[str, list[int]]:
    """Where the squares of a frame are: they pass each other."""
    places = {"red": [2 * number, 40, 2 * number + 24, 64], "green": [130 - 2 * number, 56, 154 - 2 * number, 80]}
    there = {"red": number not in HIDDEN, "green": number >= LATER}
    return {name: box for name, box in places.items() if there[name]}


def picture(number: int) -> Array:
    shown = np.full((*SIZE, 3), 90, np.uint8)
    for name, (left, top, right, bottom) in squares(number).items():
        shown[top:bottom, left:right, LABELS.index(name)] = 250
    return shown


def film(folder: Path) -> Path:
    """In lossless RGB, with a keyframe each 5 frames, 10 frames a second."""
    path = folder / "squares.mp4"
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264rgb", rate=10, options={"qp": "0", "bf": "0"})
        video.height, video.width = SIZE
        video.pix_fmt, video.codec_context.gop_size = "rgb24", 5
        for number in range(FRAMES):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture(number), "rgb24")))
        out.mux(video.encode())
    return path


def without_a_gop(clip: Path) -> Path:
    """The film with packets that no decoder can use behind its seventh keyframe: frames 30 to 34 are lost."""
    path = clip.with_name("damaged.mp4")
    with av.open(str(clip)) as given, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(given.streams.video[0], opaque=True)
        for number, packet in enumerate(each for each in given.demux(video=0) if each.size):
            if 30 <= number < 33:
                spoiled = av.Packet(bytes(packet)[:5] + bytes(packet.size - 5))
                spoiled.pts, spoiled.dts, spoiled.duration = packet.pts, packet.dts, packet.duration
                spoiled.time_base, spoiled.is_keyframe = packet.time_base, packet.is_keyframe
                packet = spoiled
            packet.stream = stream
            out.mux(packet)
    return path


def pipeline(folder: Path, name: str, options: str) -> Path:
    """rigflow's own, with the finder in segments of half a second."""
    put(folder, finder(), CARD)
    text = files("pipelines").joinpath("definitions", f"{name}.toml").read_text()
    assert 'model = "yolox_s"' in text
    text = text.replace('model = "yolox_s"', 'model = "m"').replace("\n[[stage]]", "segment_s = 0.5\n[[stage]]", 1)
    path = folder / f"{name}.toml"
    more = "options = { lines = true }\n"
    path.write_text(f"{text.removesuffix(more)}options = {{ {options} }}\n")
    return path


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache"), STAGES) as started:
        yield started


def track_of(name: str, number: int) -> int | None:
    """By hand: red is there from the start, and green is confirmed in its second frame."""
    return 1 if name == "red" else 2 if number > LATER else None


async def test_lines_and_tables_have_the_numbers_of_tracks(fleet: Fleets, tmp_path: Path) -> None:
    path = pipeline(tmp_path, "detect", "track = true, mot = true, csv = true, coco = true")
    [outcome] = await fleet.answers(path, [film(tmp_path)], tmp_path / "out")
    rows = lines(outcome)
    assert len(rows) == FRAMES
    for number, row in enumerate(rows):
        found = {box["label"]: (box["box"], box["track"]) for box in row["boxes"]}
        assert found == {name: (box, track_of(name, number)) for name, box in squares(number).items()}, number
    everything = [(number, name) for number in range(FRAMES) for name in squares(number)]
    table = csv.DictReader(Path(f"{outcome.target}.csv").read_text().splitlines())
    assert [row["track"] for row in table] == [str(track_of(name, number) or "") for number, name in everything]
    coco = json.loads(Path(f"{outcome.target}.coco.json").read_text())
    assert [row.get("track_id") for row in coco["annotations"]] == [track_of(name, n) for n, name in everything]
    moves = [line.split(",")[:3] for line in Path(f"{outcome.target}.mot.txt").read_text().splitlines()]
    assert [(int(frame), int(track)) for frame, track, _ in moves] == [
        (number + 1, track) for number, name in everything if (track := track_of(name, number))
    ]


async def test_frames_that_are_lost_are_steps_too(fleet: Fleets, tmp_path: Path) -> None:
    path = pipeline(tmp_path, "detect", "track = true, mot = true")
    [outcome] = await fleet.answers(path, [without_a_gop(film(tmp_path))], tmp_path / "out")
    assert outcome.done is not None
    assert (outcome.done.frames, outcome.done.lost) == (55, 5)
    moves = [line.split(",") for line in Path(f"{outcome.target}.mot.txt").read_text().splitlines()]
    seen = [number for number in range(FRAMES) if number not in HIDDEN and not 30 <= number < 35]
    assert [(int(frame), float(left)) for frame, track, left, *_ in moves if track == "1"] == [
        (number + 1, 2.0 * number) for number in seen
    ]


async def test_a_film_shows_the_numbers_of_tracks(fleet: Fleets, tmp_path: Path) -> None:
    """And has its lines beside it, those of `detect`."""
    path = pipeline(tmp_path, "detect-video", f"{DRAWN}, crf = 4, labels = false, scores = false")
    [outcome] = await fleet.answers(path, [film(tmp_path)], tmp_path / "out")
    assert [{box["label"]: (box["box"], box["track"]) for box in row["boxes"]} for row in lines(outcome)] == [
        {name: (box, track_of(name, n)) for name, box in squares(n).items()} for n in range(FRAMES)
    ]
    with av.open(f"{outcome.target}.mp4") as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == [number / 10 for number in range(FRAMES)]
    for number, frame in enumerate(frames):
        shown = frame.to_ndarray(format="rgb24").astype(int)
        for name, (left, _, right, bottom) in squares(number).items():
            track = track_of(name, number)
            colour = class_colour(track - 1) if track else (160, 160, 160)
            line = shown[bottom - 2 : bottom, left + 4 : right - 4].mean(axis=(0, 1))
            crossed = name == "red" and abs(left - squares(number).get("green", [left + 99])[0]) < 30
            assert crossed or np.abs(line - colour).max() < 40, (number, name)


async def test_images_are_drawn_and_listed_without_numbers(fleet: Fleets, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in (0, 30)]
    for path in paths:
        Image.fromarray(picture(int(path.stem))).save(path)
    [listed] = await fleet.answers(pipeline(tmp_path, "detect", "track = true"), paths, tmp_path / "lines")
    assert [[box["box"] for box in row["boxes"]] for row in lines(listed)] == [
        [*squares(number).values()] for number in (0, 30)
    ]
    assert "track" not in Path(f"{listed.target}.jsonl").read_text()
    [drawn] = await fleet.answers(
        pipeline(tmp_path, "detect-video", "track = true, lines = true"), paths, tmp_path / "drawn"
    )
    assert lines(drawn) == lines(listed)
    left, top, right, _ = squares(30)["red"]
    shown = np.asarray(Image.open(drawn.target / "30.png"))
    assert shown[top, left + 12 : right].tolist() == [list(class_colour(0))] * (right - left - 12)


def test_killed_workers_change_no_track(tmp_path: Path) -> None:
    """kill -9 of one of two workers in the middle of a job changes neither the film nor its lines."""
    path = pipeline(tmp_path, "detect-video", DRAWN)
    [drawn] = whole_and_killed(path, [film(tmp_path)], tmp_path / "out", tmp_path / "cache")
    assert b'"track": 2' in Path(f"{drawn.target}.jsonl").read_bytes()


def test_a_missing_model_is_one_line_and_options_choose_another(tmp_path: Path) -> None:
    clip, home = film(tmp_path), {"HOME": str(tmp_path)}
    for name in ("detect", "detect-video"):
        done = rigflow("run", name, clip, "--out", tmp_path / "out", **home)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "model yolox_s is missing: download yolox_s.onnx from" in done.stderr
        assert "`rigflow model add yolox_s.onnx`; --model NAME runs another" in done.stderr
    folder = tmp_path / ".local/share/rigflow/models"
    folder.mkdir(parents=True)
    put(folder, finder(), CARD, "mine")
    options = ("--model", "mine", "--set", "encode.track=true", "--set", "encode.track_lost_s=0.3")
    done = rigflow("run", "detect", clip, *options, "--workers", "1", "--out", tmp_path / "out", **home)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "out/squares.detect.jsonl").read_text().splitlines()]
    reds = [box["track"] for row in rows for box in row["boxes"] if box["label"] == "red"]
    assert reds == [1] * 20 + [None] + [3] * (FRAMES - 27), "it was hidden for longer than a track lasts"
    done = rigflow(
        "run", "detect", clip, "--model", "mine", "--set", "encode.mot=true", "--out", tmp_path / "o", **home
    )
    assert "mot = true needs track = true" in done.stderr
