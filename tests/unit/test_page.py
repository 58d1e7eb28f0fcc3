"""The page of the gateway as it is served, without a browser: its size, its policy, its texts."""

import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("fastapi")

from gateway.page import HEADERS, page_files

MOST_BYTES = 200_000


def texts(name: str) -> dict[str, str]:
    """Key -> text of a dictionary of the page."""
    source = page_files()[f"{name}.js"].content.decode()
    return dict(re.findall(r'(\w+): "((?:[^"\\]|\\.)*)"', source))


def test_it_is_small_and_takes_nothing_from_elsewhere() -> None:
    files = page_files()
    assert sum(len(file.content) for file in files.values()) < MOST_BYTES
    for name, file in files.items():
        found = re.findall(rb"https?://[^\s\"')]+", file.content)
        assert set(found) <= {b"http://www.w3.org/2000/svg"}, name
    assert "'unsafe" not in HEADERS["Content-Security-Policy"]
    assert b"<script>" not in files["index.html"].content
    assert b"style=" not in files["index.html"].content


def test_every_file_that_is_named_is_there() -> None:
    files = page_files()
    for file in files.values():
        for name in re.findall(rb"/page/([\w.]+)", file.content):
            assert name.decode() in files
    parser = HTMLParser()
    parser.feed(files["index.html"].content.decode())


def test_every_text_is_in_both_languages_with_the_same_places() -> None:
    english, chinese = texts("en"), texts("zh")
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", chinese[key])), key
    code = b"".join(file.content for name, file in page_files().items() if name.endswith(".js")).decode()
    used = set(re.findall(r'\bt\("(\w+)"', code))
    counted = set(re.findall(r'\bmany\("(\w+)"', code))
    assert used | counted | {f"{key}Many" for key in counted} <= english.keys()


def test_no_text_is_in_the_code_or_unused() -> None:
    scripts = {name: file.content.decode() for name, file in page_files().items() if name.endswith(".js")}
    code = "".join(text for name, text in scripts.items() if name not in ("en.js", "zh.js", "sentences.js"))
    prefixes = re.findall(r'\bword\("(\w+)"', code)
    quoted = set(re.findall(r'"(\w+)"', code)) | set(re.findall(r"\b(\w+):", code))
    unused = [
        key
        for key in texts("en")
        if not {key, key.removesuffix("Many")} & quoted and not key.startswith(tuple(prefixes))
    ]
    assert not unused
    sentences = re.findall(r'"[A-Z][a-z]+ [a-z]+[^"]*"', code)
    assert not sentences
