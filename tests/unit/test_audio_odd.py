"""Odd and damaged files of sound: each becomes samples or one line."""

import io
import struct
import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from engines.media.limits import Limits
from engines.media.pcm import with_header
from schemas.errors import ItemTooLarge, MediaError, RigflowError, UsageError
from tests.sounds import begins, decoded, file_of, joined, voice


def wav(data: bytes, channels: int = 1, rate: int = 16000, bits: int = 16, code: int = 1, more: bytes = b"") -> bytes:
    block = channels * bits // 8
    head = struct.pack("<HHIIHH", code, channels, rate, rate * block & 0xFFFFFFFF, block, bits) + more
    chunks = b"WAVEfmt " + struct.pack("<I", len(head)) + head + b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def test_one_sample_is_a_window() -> None:
    [part] = decoded(wav(struct.pack("<h", 16384)))
    assert joined([part]).tolist() == [0.5]
    assert part.meta.media.duration_s == 1 / 16000


def test_a_file_that_is_cut_within_its_first_packets_has_their_sound_or_none() -> None:
    sound = voice(1.0, 16000)
    [part] = decoded(file_of(sound, 16000, "caf", "pcm_s16le")[:4150])
    assert len(joined([part])) > 1000
    assert part.meta.frames == 1, "a job whose parts have no frames has failed"
    mp3 = file_of(sound, 16000, "mp3", "libmp3lame")
    with pytest.raises(MediaError, match="voice has no samples of sound: copy or record it again"):
        decoded(mp3[:400])


def test_samples_of_any_width_are_their_own_values() -> None:
    """The values are computed from the bytes by hand."""
    count, rate = 1000, 16000
    ramp = np.arange(-count // 2, count // 2)
    for bits, width in ((16, 2), (24, 3), (32, 4)):
        whole = ramp * (1 << (bits - 11))
        data = b"".join(int(value).to_bytes(width, "little", signed=True) for value in whole)
        np.testing.assert_array_equal(joined(decoded(wav(data, bits=bits))), (whole / 2 ** (bits - 1)).astype("f4"))
    np.testing.assert_array_equal(joined(decoded(wav(bytes(range(256)), bits=8))), (np.arange(256) - 128) / 128)
    floats = (ramp / count).astype("<f4")
    np.testing.assert_allclose(joined(decoded(wav(floats.tobytes(), bits=32, code=3), rate=rate)), floats, atol=2**-32)


def test_six_channels_of_24_bits_at_96_khz_are_mixed_by_their_weights() -> None:
    mask = bytes.fromhex("0100000000001000800000aa00389b71")
    more = struct.pack("<HHI", 22, 24, 0x3F) + mask  # FL FR FC LFE BL BR
    weights = np.array([0.5, 0.5, 2**-0.5, 0, 2**-1.5, 2**-1.5])
    for channel, weight in enumerate(weights / weights.sum()):
        frame = b"\0\0\0" * channel + b"\0\0\x40" + b"\0\0\0" * (5 - channel)
        found = joined(decoded(wav(frame * 9600, 6, 96000, 24, 0xFFFE, more)))
        assert len(found) == 1600
        assert np.abs(found[100:-100] - 0.5 * weight).max() < 1e-5


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0xFFFFFFFE, 0, 7])
def test_a_size_that_is_not_true_leaves_the_sound_as_it_is(size: int) -> None:
    """As pipes write it, which do not know the length in advance. A size that is too small is believed."""
    data = np.arange(-2000, 2000, dtype="<i2").tobytes()
    whole = wav(data)
    place = whole.index(b"data") + 4
    found = joined(decoded(whole[:4] + struct.pack("<I", size) + whole[8:place] + struct.pack("<I", size) + data))
    expected = np.arange(-2000, 2000) / 32768
    np.testing.assert_array_equal(found, expected if size != 7 else expected[:3])


@pytest.mark.parametrize("name", [b"RF64", b"BW64"])
def test_sizes_of_64_bits_are_read(name: bytes) -> None:
    data = np.arange(-2000, 2000, dtype="<i2").tobytes()
    whole = wav(data)
    sizes = struct.pack("<QQQI", len(whole) + 28, len(data), len(data) // 2, 0)
    begins_at, place = whole.index(b"fmt "), whole.index(b"data") + 4
    far = b"\xff" * 4
    made = name + far + b"WAVEds64" + struct.pack("<I", len(sizes)) + sizes + whole[begins_at:place] + far + data
    np.testing.assert_array_equal(joined(decoded(made)), np.arange(-2000, 2000) / 32768)
    with pytest.raises(MediaError, match="is no video, sound or picture that rigflow reads"):
        decoded(name + far + b"WAVE" + whole[begins_at:place] + far + data)  # without its sizes


def test_samples_of_telephones_are_their_curves() -> None:
    """Each byte of u-law and A-law by the formulas of G.711, and ADPCM near the sound."""
    every = np.arange(256)
    flipped = every ^ 0xFF
    exponent, mantissa = flipped >> 4 & 7, flipped & 15
    ulaw = ((((mantissa << 3) + 132) << exponent) - 132) * np.where(flipped & 128, -1, 1)
    np.testing.assert_array_equal(joined(decoded(wav(every.astype("u1").tobytes(), bits=8, code=7))), ulaw / 32768)
    turned = every ^ 0x55
    exponent, mantissa = turned >> 4 & 7, turned & 15
    level = np.where(exponent, ((mantissa << 4) + 264) << np.maximum(exponent - 1, 0), (mantissa << 4) + 8)
    alaw = level * np.where(turned & 128, 1, -1)
    np.testing.assert_array_equal(joined(decoded(wav(every.astype("u1").tobytes(), bits=8, code=6))), alaw / 32768)
    sound = voice(1.0, 16000)
    for codec in ("adpcm_ms", "adpcm_ima_wav"):
        found = joined(decoded(file_of(sound, 16000, "wav", codec)))[: sound.shape[-1]]
        assert np.abs(found - sound.mean(axis=0)[: len(found)]).mean() < 0.02


def test_two_channels_stay_two() -> None:
    sound = voice(1.5, 16000, channels=2)
    found = joined(decoded(file_of(sound, 16000), channels=2))
    assert found.shape == (24000, 2)
    assert np.abs(found - sound.T).max() < 1e-4
    one = joined(decoded(file_of(sound, 16000)))
    assert np.abs(one - sound.mean(axis=0)).max() < 1e-4
    same = joined(decoded(file_of(sound[:1], 16000), channels=2))
    np.testing.assert_array_equal(same[:, 0], same[:, 1])


def test_what_is_no_number_is_silence_with_a_note() -> None:
    for kind, bits in (("<f4", 32), ("<f8", 64)):
        given = np.array([0.25, np.nan, 0.5, np.inf, -np.inf, 3, -7], kind)
        [part] = decoded(wav(given.tobytes(), bits=bits, code=3))
        assert joined([part]).tolist() == [0.25, 0, 0.5, 1, -1, 1, -1]
        assert part.meta.notes == ("voice: samples that are no numbers are silence",)


def test_long_silence_is_cut_where_the_lattice_says() -> None:
    parts = decoded(wav(bytes(2 * 8000 * 130), rate=8000), rate=8000, window_s=30.0, reach_s=10.0)
    assert begins(parts) == [0, 240_000, 480_000, 720_000, 960_000]
    assert not joined(parts).any()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (wav(b""), "voice has no samples of sound: record it again"),
        (b"RIFF\x24\0\0\0WAVE", "voice is no video, sound or picture that rigflow reads"),
        (b"this is a text\n" * 99, "voice is no video, sound or picture that rigflow reads"),
        (bytes(99_999), "voice is no video, sound or picture that rigflow reads"),
        (wav(bytes(999), rate=0), "voice is no video, sound or picture that rigflow reads"),
        (wav(bytes(999), channels=0), "voice has no sound that can be decoded"),
        (wav(bytes(99_999), channels=200), "voice has 200 channels at 16000 Hz: convert it to at most 64 channels"),
        (wav(bytes(99), rate=7), "voice has 1 channel at 7 Hz: convert it to at most 64 channels, at 100 to 768000 Hz"),
    ],
)
def test_what_has_no_sound_is_one_line(data: bytes, words: str) -> None:
    with pytest.raises(RigflowError) as raised:
        decoded(data)
    assert str(raised.value).startswith(words)
    assert "\n" not in str(raised.value)


def test_limits_bound_what_is_decoded() -> None:
    data = wav(bytes(2 * 8000 * 70), rate=8000)
    with pytest.raises(ItemTooLarge, match=r"voice lasts 6.* seconds, more than 60"):
        decoded(data, limits=Limits(duration_s=60))
    with pytest.raises(ItemTooLarge, match="voice asks for 700 windows, more than 100"):
        decoded(data, window_s=0.1, limits=Limits(windows=100))


def moved(found: np.ndarray, sound: np.ndarray) -> int:
    """By how many samples a sound is late."""
    middle = slice(len(sound) // 4, len(sound) // 2)
    off = {by: np.sum((found[middle.start + by : middle.stop + by] - sound[middle]) ** 2) for by in range(-40, 41)}
    return min(off, key=lambda by: off[by])


def mp3() -> bytes:
    return file_of(voice(5.0, 44100), 44100, "mp3", "libmp3lame", 64000)


def test_an_mp3_has_neither_its_encoders_delay_nor_its_padding() -> None:
    assert len(joined(decoded(mp3(), rate=44100))) == 5 * 44100
    assert moved(joined(decoded(mp3(), rate=44100)), voice(5.0, 44100)[0]) == 0


def test_a_wrong_header_of_an_mp3_is_read_over() -> None:
    plain, whole = mp3(), joined(decoded(mp3()))
    at = max(plain.find(b"Xing"), plain.find(b"Info"))
    many = bytearray(plain)
    many[at + 8 : at + 12] = b"\xff\xff\xff\xff"  # frames
    np.testing.assert_array_equal(joined(decoded(bytes(many)))[:79_900], whole[:79_900])
    assert len(joined(decoded(b"\0garbage" * 300 + plain))) > 80_000
    packed = wav(plain, 2, 8000, 0, 0x55, struct.pack("<HHIHHH", 12, 1, 2, 417, 1, 1393))  # it is of 44.1 kHz, mono
    assert abs(len(joined(decoded(packed))) - 80_000) < 1200


@pytest.mark.parametrize("tag", [b"ID3\x04\0\0\0\0\x10\0" + bytes(2048), b"LYRICSBEGIN" + b"INDOO" * 200, bytes(5000)])
def test_a_tag_behind_the_sound_of_an_mp3_is_no_damage(tag: bytes) -> None:
    whole, parts = joined(decoded(mp3(), rate=44100)), decoded(mp3() + tag, rate=44100)
    assert [part.meta.notes for part in parts if part.meta.notes] == []
    assert sum(part.meta.lost for part in parts) == 0
    np.testing.assert_array_equal(joined(parts)[: len(whole)], whole)
    assert len(joined(parts)) - len(whole) < 1152, "of the encoder's padding"


@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("matroska", "aac"), ("matroska", "libopus")])
def test_broken_packets_are_lost_seconds_of_silence(container: str, codec: str) -> None:
    """What is whole stays where it is, and the counts are the same however the file is cut."""
    sound, rate = voice(25.0, 48000), 48000
    data = bytearray(file_of(sound, rate, container, codec, 64000))
    with av.open(io.BytesIO(bytes(data))) as opened:
        packets = [bytes(packet) for packet in opened.demux(audio=0) if packet.size]
    whole = decoded(bytes(data), rate=rate)
    broken = [len(packets) // 3, len(packets) // 3 + 1, len(packets) - 30]
    for number in broken:
        at = bytes(data).find(packets[number])
        assert at > 0
        data[at : at + len(packets[number])] = b"\xff" * len(packets[number])
    parts = decoded(bytes(data), rate=rate, window_s=5.0)
    lost, frames = (sum(getattr(part.meta, name) for part in parts) for name in ("lost", "frames"))
    assert lost >= 1
    if container != "flac":  # whose parser makes one packet of the broken one and of whole ones behind it
        assert lost + frames == sum(part.meta.frames for part in whole)
    assert any("s of sound are missing or damaged, " in note for part in parts for note in part.meta.notes)
    off = np.flatnonzero(np.abs(joined(parts) - joined(whole)) > 0.05)
    step = 25 * rate / len(packets)
    near = abs(off[:, None] / step - np.array(broken)).min(axis=1).max()
    assert near < 6, "only what is near the damage differs"
    other = decoded(bytes(data), rate=rate, window_s=25.0, segment_s=99.0)
    np.testing.assert_array_equal(joined(other), joined(parts))
    assert sum(part.meta.lost for part in other) == lost


def film(late: Fraction, sound: np.ndarray, rate: int, container: str = "mp4") -> bytes:
    """A film of a second more than its two sound tracks, which begin `late` seconds after the picture."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        picture = out.add_stream("mpeg4", rate=10)
        picture.width, picture.height = 32, 32
        tracks = [out.add_stream("aac" if container == "mp4" else "flac", rate=rate, layout="mono") for _ in range(2)]
        for _ in range(10 * (sound.shape[1] // rate + 1)):
            out.mux(picture.encode(av.VideoFrame(32, 32, "yuv420p")))
        for number, track in enumerate(tracks):
            for start in range(0, sound.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(
                    np.ascontiguousarray(sound[number : number + 1, start : start + 1024], "f4"), "fltp", "mono"
                )
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = start + round(late * rate)
                out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return file.getvalue()


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_the_sound_of_a_film_counts_from_its_first_picture(container: str) -> None:
    sound = voice(3.0, 16000, channels=2)
    data = film(Fraction(1, 2), sound, 16000, container)
    for stream, track in ((None, 0), (1, 0), (2, 1)):
        found = joined(decoded(data, stream=stream))
        assert abs(len(found) - 56000) < 100
        assert not found[:6900].any()
        assert abs(moved(found[8000:], sound[track])) <= (0 if container == "mp4" else 8), (
            "mkv's times are milliseconds"
        )
    with pytest.raises(
        MediaError, match="voice has no sound track 7: choose by --stream one of those that it has: 1, 2"
    ):
        decoded(data, stream=7)


def test_a_long_time_without_sound_is_silence() -> None:
    """Segments of it have no packet at all."""
    sound = voice(3.0, 16000, channels=2)
    parts = decoded(film(Fraction(70), sound, 16000, "matroska"), window_s=10.0)
    found = joined(parts)
    assert abs(len(found) - 73 * 16000) < 100
    assert not found[: 69 * 16000].any()
    assert abs(moved(found[70 * 16000 :], sound[0])) <= 8
    assert sum(part.meta.lost for part in parts) == 0


def test_samples_without_a_header_are_what_their_content_type_says() -> None:
    sound = voice(0.5, 24000, channels=2)
    whole = np.rint(sound * 32767).astype(np.int16)
    for kind, order in (("audio/L16", ">i2"), ("audio/pcm", "<i2"), ("audio/pcm; format=s16be", ">i2")):
        body = with_header(whole.T.astype(order).tobytes(), f"{kind}; rate=24000; channels=2")
        found = joined(decoded(body, rate=24000, channels=2))
        np.testing.assert_array_equal(found, (whole.T / 32768).astype(np.float32))
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setparams((2, 2, 24000, 0, "NONE", ""))
        out.writeframes(whole.T.tobytes())
    assert with_header(file.getvalue(), "audio/wav") == file.getvalue()
    for given in ("audio/pcm", "audio/L16; rate=fast", "audio/L16; rate=16000; channels=0"):
        with pytest.raises(UsageError, match="is no number from 1 to"):
            with_header(b"", given)
    with pytest.raises(UsageError, match="there is no format s17le: there are u8, s16le"):
        with_header(b"", "audio/pcm; rate=8000; format=s17le")
