"""The pipeline embed and what is searched in its results: pictures and films, equal for every fleet."""

import json
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.models.catalogue import own_model
from tests.cases import Fleets, arrays, film, fleets, frames_of, whole_and_killed
from tests.cli import rigflow
from tests.towers import COLOURS, Array, clip_folder, picture_vector

STAGES = (("decode",), ("infer",), ("encode", "split", "collect"))
RATE = 10  # frames a second of the film


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleets]:
    with fleets(tmp_path_factory.mktemp("cache"), STAGES) as started:
        yield started


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with the model `mine`."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    done = rigflow("model", "add", clip_folder(tmp_path / "mine"), HOME=os.environ["HOME"])
    assert done.returncode == 0, done.stderr
    return tmp_path / "home"


def pipeline(folder: Path) -> Path:
    """rigflow's own with the model of the tests, 5 pictures a second, in short segments."""
    text = files("pipelines").joinpath("definitions", "embed.toml").read_text()
    text = text.replace('model = "clip-vit-base-patch32"', 'model = "mine"').replace("fps = 1.0", "fps = 5.0")
    path = folder / "embed.toml"
    path.write_text(text.replace('media = ["video", "image"]', 'media = ["video", "image"]\nsegment_s = 0.5'))
    return path


def pictures(folder: Path) -> dict[str, Array]:
    """A picture mostly of each colour, odd sizes, and what copies people make of the first."""
    random = np.random.default_rng(2)
    made = {}
    for number, (name, colour) in enumerate(COLOURS.items()):
        noise = random.integers(-20, 20, (50 + 7 * number, 61, 3))
        made[name] = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
        made[name][5:20, 5 * number : 20 + 5 * number] = random.integers(0, 255, 3)
        Image.fromarray(made[name]).save(folder / f"{name}.png")
    red = Image.fromarray(made["red"])
    red.resize((183, 150), Image.Resampling.LANCZOS).save(folder / "large.webp", quality=80)
    red.resize((45, 37), Image.Resampling.BICUBIC).save(folder / "small.jpg", quality=75)
    return made


async def test_vectors_equal_those_of_an_independent_reference_for_every_fleet(
    fleet: Fleets, home: Path, tmp_path: Path
) -> None:
    given, clip = pictures(tmp_path), film(tmp_path, 24)
    paths = [clip, *(tmp_path / f"{name}.png" for name in given)]
    made = await fleet.answers(pipeline(tmp_path), paths, tmp_path / "out")
    [video, album] = sorted(made, key=lambda outcome: outcome.kind != "video")
    found, expected = arrays(video), [picture_vector(frame) for frame in frames_of(clip)[::2]]
    np.testing.assert_allclose(found["times"], np.arange(12) / 5)
    assert np.einsum("ij,ij->i", found["embedding"], expected).min() > 0.99995
    assert found["sources"].tolist() == [str(clip)]
    images = arrays(album)
    expected = [picture_vector(given[Path(name).stem]) for name in images["names"].tolist()]
    assert np.einsum("ij,ij->i", images["embedding"], expected).min() > 0.99995
    assert images["sources"].tolist() == [str(tmp_path / name) for name in images["names"]]
    assert images["identities"].tolist() == [own_model("mine")[0].identity]
    assert (images["models"].tolist(), len(images["revision"][0])) == (["mine"], 16)


def test_killed_workers_change_nothing(home: Path, tmp_path: Path) -> None:
    pictures(tmp_path)
    inputs = [film(tmp_path, 60), *sorted(tmp_path.glob("*.png"))]
    whole_and_killed(pipeline(tmp_path), inputs, tmp_path / "out", tmp_path / "cache")


def test_a_library_is_filled_and_searched_by_commands(home: Path, tmp_path: Path) -> None:
    pictures(tmp_path)
    library, environment = tmp_path / "library", {"HOME": str(home)}
    done = rigflow("run", "embed", *tmp_path.glob("*.*"), "--out", library, **environment)
    assert "download its json files and onnx/model.onnx into a folder clip-vit-base-patch32 from" in done.stderr
    assert "then `rigflow model add clip-vit-base-patch32`; --model NAME runs another" in done.stderr
    media = [tmp_path / name for name in ("red.png", "green.png", "blue.png", "large.webp", "small.jpg")]
    for _ in range(2):  # the second time adds nothing
        options = ("--model", "mine", "--workers", "1", "--out", library)
        done = rigflow("run", "embed", *media, *options, **environment)
        assert done.returncode == 0, done.stderr
    for colour in COLOURS:
        done = rigflow("search", f"a {colour} picture", library, "--json", **environment)
        hits = json.loads(done.stdout)
        assert len(hits) == 5
        assert hits[0]["time"] is None
        best = {hit["media"] for hit in hits[: 3 if colour == "red" else 1]}
        copies = ("red.png", "large.webp", "small.jpg")
        assert best == {str(tmp_path / name) for name in (copies if colour == "red" else [f"{colour}.png"])}
    hits = json.loads(rigflow("search", library, "--like", media[2], "--json", **environment).stdout)
    assert (hits[0]["media"], round(hits[0]["score"], 4)) == (str(media[2]), 1.0)
    [group] = json.loads(rigflow("search", library, "--duplicates", "--json", **environment).stdout)
    assert {group["media"], *(copy["media"] for copy in group["copies"])} == {
        str(tmp_path / name) for name in ("red.png", "large.webp", "small.jpg")
    }
    page = tmp_path / "found.html"
    done = rigflow("search", "green", library, "--html", page, "--most", "3", **environment | {"COLUMNS": "300"})
    assert done.stdout.splitlines()[0].split() == ["media", "score", "time"]
    assert done.stdout.splitlines()[-1] == "3 of 5 media with 5 pictures, by mine"
    assert page.read_text().count("data:image/jpeg;base64,") == 3
    assert "http" not in page.read_text()
    done = rigflow("search", "green", library, "--html", page, **environment)
    assert "give --overwrite to replace it" in done.stderr


def test_a_library_of_a_folder_knows_where_its_pictures_are(home: Path, tmp_path: Path) -> None:
    (photos := tmp_path / "photos").mkdir()
    pictures(photos)
    library, environment = tmp_path / "library", {"HOME": str(home)}
    done = rigflow("run", "embed", photos, "--model", "mine", "--workers", "1", "--out", library, **environment)
    assert done.returncode == 0, done.stderr
    [best, *_] = json.loads(rigflow("search", "green", library, "--json", **environment).stdout)
    assert best["media"] == str(photos / "green.png")
