"""sound: rows of a model's sound become files that hold them exactly, or nearly where the kind is lossy."""

import hashlib
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from engines.encoding import Origin, Traced
from engines.outputs.sound import whole_samples
from engines.part import Part
from engines.planned import Tensor
from engines.ragged import Ragged
from engines.texts import text_rows
from schemas.errors import OutputError, PipelineError
from schemas.media import Item, MediaInfo
from tests.unit.outputs_parts import VIDEO, assemble, feed, format_of, full_disk, make_part

TEXTS = MediaInfo(kind="text", timed=False)
RATE = 22050


def tone(seconds: float, hertz: float = 440.0) -> Any:
    return (0.5 * np.sin(np.arange(int(seconds * RATE)) * hertz * 2 * np.pi / RATE)).astype(np.float32)


def spoken(rows: list[Any], names: list[str], number: int = 0, rate: int = RATE, failed: tuple[str, ...] = ()) -> Part:
    """A part of pieces of texts, a text of each name."""
    places = {name: place for place, name in enumerate(dict.fromkeys([*names, *failed]))}
    items = [Item(name=name, piece_of=places[name]) for name in names]
    items += [Item(name=name, piece_of=places[name], error="too long") for name in failed]
    return spoken_items(rows, items, number, rate)


def spoken_items(rows: list[Any], items: list[Item], number: int = 0, rate: int = RATE) -> Part:
    arrays = {"sound": Ragged.of(rows), "rate": np.full(len(rows), rate, np.int32)}
    return make_part(TEXTS, arrays, (0,) * len(rows), number=number, items=items)


def read(path: Path) -> tuple[Any, int, dict[str, str]]:
    """Samples of a file, its rate and its tags."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        frames = [frame.to_ndarray() for frame in container.decode(stream)]
        channels = stream.channels
        tags = {**container.metadata, **stream.metadata}
        joined = np.concatenate([each.reshape(-1, channels) for each in frames])
        return joined[:, 0] if channels == 1 else joined, stream.rate, tags


@pytest.mark.parametrize("file", ["wav", "flac"])
def test_rows_are_there_exactly_with_silence_between(tmp_path: Path, file: str) -> None:
    rows = [tone(0.5), tone(0.25, 300), tone(0.1, 200)]
    parts = [spoken(rows[:2], ["a.txt"] * 2), spoken(rows[2:], ["a.txt"], number=1)]
    (path,) = assemble(format_of("sound", file=file, silence=0.2), tmp_path / "a.speak", TEXTS, parts)
    assert path == tmp_path / f"a.speak.{file}"
    assert not (tmp_path / "a.speak").exists()
    samples, rate, _ = read(path)
    gap = np.zeros(round(0.2 * RATE), np.int16)
    expected = [np.rint(row.astype(np.float64) * 32767).astype(np.int16) for row in rows]
    assert rate == RATE
    np.testing.assert_array_equal(samples, np.concatenate([expected[0], gap, expected[1], gap, expected[2]]))


def test_each_text_has_a_file_that_its_pieces_share(tmp_path: Path) -> None:
    rows = [tone(0.1), tone(0.2), tone(0.3)]
    parts = [spoken(rows, ["../a.txt", "../a.txt", "b.txt"], failed=("c.txt",))]
    paths = assemble(format_of("sound", silence=0), tmp_path / "x.speak", TEXTS, parts)
    assert paths == [tmp_path / "x.speak" / name for name in ("a.wav", "b.wav")]
    assert [len(read(path)[0]) for path in paths] == [len(rows[0]) + len(rows[1]), len(rows[2])]


def test_texts_of_one_name_have_a_file_each(tmp_path: Path) -> None:
    """x/a.txt, of which a piece failed, then y/a.txt, whose first pieces were lost, then two lines of one id."""
    x, y, line = Item(name="a.txt", piece_of=0), Item(name="a.txt", piece_of=1), Item(name="a", line=True)
    rows = [tone(seconds) for seconds in (0.1, 0.2, 0.3, 0.4, 0.5)]
    parts = [spoken_items(rows[:2], [x, x.model_copy(update={"error": "bad"}), x])]
    parts += [spoken_items(rows[2:], [y, line, line], number=2)]
    paths = assemble(format_of("sound", silence=0), tmp_path / "x", TEXTS, parts)
    assert [path.name for path in paths] == ["a.wav", "a-2.wav", "a-3.wav", "a-4.wav"]
    lengths = [len(rows[0]) + len(rows[1]), *map(len, rows[2:])]
    assert [len(read(path)[0]) for path in paths] == lengths


@pytest.mark.parametrize(
    ("shape", "lengths", "kind"),
    [((5,), [-5], "i2"), ((5,), [6], "i2"), ((5,), [4], "i2"), ((5, 2, 2), [5], "i2"), ((5,), [5], "f8")],
    ids=["negative", "beyond", "short", "shape", "floats"],
)
def test_a_forged_result_does_not_become_a_file(
    tmp_path: Path, shape: tuple[int, ...], lengths: list[int], kind: str
) -> None:
    part = spoken([tone(0.1)], ["a.txt"])
    assembler = format_of("sound").assemble(tmp_path / "x", TEXTS)
    arrays = {"samples": np.zeros(shape, kind), "lengths": np.array(lengths), "rate": np.array([RATE])}
    with pytest.raises(OutputError, match="does not have the samples of its rows"):
        assembler.add(part.meta, arrays, {})
    assembler.abort()
    assert list(tmp_path.iterdir()) == []


def test_one_good_text_of_several_lies_in_the_folder(tmp_path: Path) -> None:
    (path,) = assemble(format_of("sound"), tmp_path / "x", TEXTS, [spoken([tone(0.1)], ["a.txt"], failed=("b.txt",))])
    assert path == tmp_path / "x" / "a.wav"


def test_media_with_times_become_one_file_in_stereo_too(tmp_path: Path) -> None:
    stereo = np.stack([tone(0.1), tone(0.1, 880)], axis=1)
    part = make_part(VIDEO, {"sound": Ragged.of([stereo]), "rate": np.array([RATE], np.int32)}, [0])
    (path,) = assemble(format_of("sound"), tmp_path / "clip", VIDEO, [part])
    np.testing.assert_array_equal(read(path)[0], np.rint(stereo.astype(np.float64) * 32767).astype(np.int16))


@pytest.mark.parametrize(("file", "rate"), [("mp3", RATE), ("opus", 48000), ("m4a", RATE)])
def test_lossy_files_hold_nearly_the_same_sound(tmp_path: Path, file: str, rate: int) -> None:
    part = spoken([tone(1.0), tone(1.0)], ["a", "a"])
    paths = [
        assemble(format_of("sound", file=file, silence=0.5), tmp_path / name, TEXTS, [part])[0] for name in ("a", "b")
    ]
    assert len({hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}) == 1
    samples, found, _ = read(paths[0])
    assert found == rate
    assert abs(len(samples) / rate - 2.5) < 0.06
    quiet = samples[round(1.1 * rate) : round(1.4 * rate)]
    loud = samples[round(0.3 * rate) : round(0.8 * rate)]
    assert np.abs(quiet).max() < 0.01
    assert np.abs(loud).max() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("file", ["wav", "flac", "mp3", "opus", "m4a"])
def test_files_say_what_made_them_and_without_sound_they_can_be_opened(tmp_path: Path, file: str) -> None:
    format_ = format_of("sound", file=file, note="synthetic speech")
    assembler = format_.assemble(tmp_path / "a", TEXTS)
    assert isinstance(assembler, Traced)
    assembler.set_origin(Origin("f" * 64, {"joe": "a" * 64}))
    feed(format_, assembler, [spoken([tone(0)], ["a.txt"])])
    (path,) = assembler.close()
    assert assembler.notes == ["a file without sound got 0.1 s of silence"]
    samples, _, tags = read(path)
    assert not samples.any()
    assert 0.09 <= len(samples) / read(path)[1] < 0.25
    comment = "synthetic speech; rigflow, pipeline revision ffffffffffffffff, models joe aaaaaaaaaaaaaaaa"
    assert comment in tags.values()
    assert not any("Lavf" in value for value in tags.values())


@pytest.mark.parametrize("file", ["wav", "flac", "mp3", "opus", "m4a"])
def test_files_and_facts_name_the_consent_of_a_cloned_voice(tmp_path: Path, file: str) -> None:
    format_ = format_of("sound", file=file, note="mine")
    part = spoken([tone(0.1), tone(0.1)], ["a.txt", "a.txt"])
    consent = "synthetic speech, cloned voice ada, consent ada.txt sha256 " + "a" * 64
    part = part.with_arrays({**part.arrays, "consent": text_rows([consent] * 2)})
    assert format_.encode(part).facts == {"consent": consent}
    assert format_.encode(spoken([tone(0.1)], ["a.txt"])).facts == {}
    (path,) = assemble(format_, tmp_path / "a", TEXTS, [part])
    assert f"{consent}; mine" in read(path)[2].values()


def test_whole_samples_are_symmetric_and_finite() -> None:
    values = np.array([-1, 1, -1.5, 2, np.nan, np.inf, -np.inf, 0.5 / 32767, 1.5 / 32767], np.float32)
    assert whole_samples(values).tolist() == [-32767, 32767, -32767, 32767, 0, 32767, -32767, 0, 2]


def test_sound_of_another_rate_cannot_follow(tmp_path: Path) -> None:
    parts = [spoken([tone(0.1)], ["a"]), spoken([tone(0.1)], ["a"], number=1, rate=24000)]
    with pytest.raises(OutputError, match="1 x 22050 Hz is followed by sound of 1 x 24000 Hz"):
        assemble(format_of("sound"), tmp_path / "a", TEXTS, parts)
    assert not any(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with full_disk(100_000), pytest.raises(OutputError, match="cannot write"):
        assemble(format_of("sound"), tmp_path / "a", TEXTS, [spoken([tone(30)], ["a"])])
    assert not any(tmp_path.iterdir())


def test_a_pipeline_without_sound_is_refused() -> None:
    with pytest.raises(PipelineError, match="format sound needs `sound` and `rate`, the part holds `text`"):
        format_of("sound").check({"text": Tensor("uint8", ("W", "count"), ragged=True)}, ["text"])
    rate = Tensor("int32", ("W",))
    with pytest.raises(PipelineError, match="`sound` is int16"):
        format_of("sound").check({"sound": Tensor("int16", ("W", "count"), ragged=True), "rate": rate}, ["text"])
    with pytest.raises(PipelineError, match="has no option `rate`"):
        format_of("sound", rate=16000)
