"""Looks at a page: axe, its width, texts that are not translated, and pictures for people."""

import os
import re
import time
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 360, "height": 780}
AXE = files("axe_core_python").joinpath("axe.min.js").read_text() if find_spec("axe_core_python") else ""
VIEWS = ("jobs", "submit", "search", "fleet", "pipelines", "models", "dead")
# texts that people read, but for names from outside and sentences of the gateway, which is English
TEXTS = """() => {
  const outside = "[translate=no], [lang=en], script, style, noscript", found = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!element.closest(outside) && element.checkVisibility()) found.push(walk.currentNode.textContent);
  }
  for (const element of document.querySelectorAll("body *"))
    if (!element.closest(outside))
      for (const name of ["aria-label", "title", "placeholder", "alt"]) found.push(element.getAttribute(name) ?? "");
  return found;
}"""
# units, and what has no other name, as a pipeline
SAME_IN_CHINESE = {"rigflow", "embed", "B", "kB", "MB", "GB", "TB", "W", "MHz", "ONNX", "C"}


def checked(page: Any, name: str) -> None:
    """axe finds nothing in the page as it is, and nothing is wider than it; a picture of it for people."""
    page.evaluate(AXE)
    found = page.evaluate("axe.run()")
    said = [f"{each['id']}: {node['html'][:200]}" for each in found["violations"] for node in each["nodes"]]
    assert not said, said
    assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]
    if folder := os.environ.get("PAGE_SHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def until(page: Any, expression: str, seconds: float = 30.0) -> None:
    """Wait until an expression is true; Playwright's own wait evaluates strings, which the policy forbids."""
    end_s = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < end_s, expression
        page.wait_for_timeout(50)


PICTURES_THERE = "[...document.images].every((each) => each.complete && each.naturalWidth > 0)"


def settled(page: Any) -> None:
    """Wait until the view is there."""
    page.get_by_role("heading", level=1).wait_for()
    page.locator(".loading").wait_for(state="detached")


# whether two characters are drawn, and not a box in place of each
DRAWN = """(two) => {
  const pictures = [...two].map((each) => {
    const canvas = document.createElement("canvas"), context = canvas.getContext("2d");
    context.font = getComputedStyle(document.body).font;
    context.fillText(each, 0, 40);
    return canvas.toDataURL();
  });
  return pictures[0] !== pictures[1];
}"""


def set_theme(page: Any, name: str) -> None:
    """Switch to light or dark, by the keyboard."""
    if page.evaluate("document.documentElement.dataset.theme") != name:
        page.locator("#theme").focus()
        page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == name


def set_language(page: Any, name: str) -> None:
    """Choose the language."""
    page.locator("#language").select_option(name)
    settled(page)


def untranslated(page: Any, names: tuple[str, ...] = ()) -> list[str]:
    """Latin words in texts of the page; `names` are data."""
    texts = [re.sub(r"\b[0-9a-f]{20}\b", "", text) for text in page.evaluate(TEXTS) if text not in names]
    for name in names:
        texts = [text.replace(name, "") if len(name) > 1 else text for text in texts]
    words = {word for text in texts for word in re.findall(r"[A-Za-z]+", text)}
    return sorted(words - SAME_IN_CHINESE)


def submitted(page: Any, pipeline: str, *paths: Path) -> None:
    """Submit files by the page, and wait until each is a job."""
    page.goto(f"/#submit/{pipeline}")
    page.locator("#files").set_input_files(paths)
    for path in paths:
        page.get_by_role("link", name=f"{path.name} is job").first.wait_for()
