"""Results of media that came by HTTP are called as those of the command line: all letters and spaces stay."""

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

httpx = pytest.importorskip("httpx")
pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from gateway.api.results import attachment  # noqa: E402
from tests.cli import rigflow  # noqa: E402
from tests.clips import still  # noqa: E402
from tests.fleet import ONE_WORKER, Fleet  # noqa: E402
from tests.gateway import Gateway  # noqa: E402

JOBS = "/api/v1/jobs"
NAMES = [
    "Büro 日本.jpg",
    "кадр №1 (v2).final.jpg",
    "ABC.jpg",
    "a\nb\x1b.jpg",
    "to\\..\\e\N{RIGHT-TO-LEFT OVERRIDE}.jpg",
]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(ONE_WORKER, tmp_path_factory.mktemp("cache")) as fleet:
        (first := tmp_path_factory.mktemp("first") / "a.jpg").write_bytes(still("mjpeg"))
        assert (
            rigflow("run", "fingerprint", first, "--nats", fleet.settings.nats, "--out", first.parent).returncode == 0
        )
        yield fleet


def test_results_by_http_are_called_as_those_of_the_command_line(fleet: Fleet, tmp_path: Path) -> None:
    paths = [tmp_path / name for name in NAMES]
    for number, path in enumerate(paths):
        path.write_bytes(still("mjpeg", seed=number))
    with Gateway(fleet.settings) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as http:
        for number, path in enumerate(paths):
            out = tmp_path / f"out-{number}"
            ran = rigflow("run", "fingerprint", path, "--nats", fleet.settings.nats, "--out", out)
            assert ran.returncode == 0, ran.stderr
            [expected] = out.iterdir()
            body, asked = path.read_bytes(), {"pipeline": "fingerprint"}
            posted = http.post(JOBS, params={**asked, "name": path.name}, content=body)
            form = http.post(JOBS, data=asked, files={"file": (path.name, body)})
            for made in (posted, form) if path.name.isprintable() else (posted,):
                assert made.status_code == 201, made.text
                assert _downloaded(http, made.json()["id"]) == expected.name
                saved = tmp_path / f"saved-{made.json()['id']}"
                job = made.json()["id"]
                assert rigflow("results", job, "--nats", fleet.settings.nats, "--out", saved).returncode == 0
                assert [each.name for each in saved.iterdir()] == [expected.name]


def _downloaded(http: Any, job: str) -> str:
    """The name of a job's only file, which its list, its download and its archive have."""
    with http.stream("GET", f"{JOBS}/{job}/events") as stream:
        assert '"state":"done"' in stream.read().decode().replace(" ", "")
    [file] = http.get(f"{JOBS}/{job}/results").json()["files"]
    loaded = http.get(f"{JOBS}/{job}/results/{quote(file['name'])}")
    assert loaded.headers["content-disposition"] == attachment(file["name"])
    assert loaded.content == http.get(file["url"]).content != b""
    archive = zipfile.ZipFile(io.BytesIO(http.get(f"{JOBS}/{job}/results.zip").content))
    assert archive.namelist() == [file["name"]]
    return str(file["name"])


def test_a_name_that_is_too_long_for_a_file_is_cut_between_two_letters(fleet: Fleet) -> None:
    with Gateway(fleet.settings) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as http:
        made = http.post(JOBS, params={"pipeline": "fingerprint", "name": f"a{'日' * 190}.jpg"}, content=still("mjpeg"))
        assert _downloaded(http, made.json()["id"]) == f"a{'日' * 53}.fingerprint.npz"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clip.x.npz", 'attachment; filename="clip.x.npz"'),
        ("a b.png", 'attachment; filename="a b.png"'),
        ("Büro 日.png", "attachment; filename=\"B_ro _.png\"; filename*=UTF-8''B%C3%BCro%20%E6%97%A5.png"),
        ('a"\\%\r\nb.png', "attachment; filename=\"a_____b.png\"; filename*=UTF-8''a%22%5C%25%0D%0Ab.png"),
        ("it's.png", 'attachment; filename="it\'s.png"'),
        ("日's.png", "attachment; filename=\"_'s.png\"; filename*=UTF-8''%E6%97%A5%27s.png"),
    ],
)
def test_a_download_says_its_name_in_ascii_and_in_full(name: str, value: str) -> None:
    assert attachment(name) == value
