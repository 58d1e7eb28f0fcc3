"""The model cards that come with rigflow: each is well-formed, and only a model that it truly fits gets one."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.models import shipped_cards as shipped
from engines.models.companions.base import Model, Port, Sure
from engines.models.companions.coco import COCO
from engines.models.proposal import Proposal, merged, propose
from engines.models.shipped_cards import Fits, ShippedCard, lines_of_shipped, load_card, shipped_cards
from engines.models.store import find, new_files
from schemas.errors import ModelError
from tests.compact import compact
from tests.convolutions import convolutions

CARDS = sorted(shipped_cards())
FOLDER = Path(shipped.__file__).with_name("cards")
SIZES = {"N": "n", "H": 96, "W": 64, "A": 12, "B": 13, "C": 14, "D": 15}


def tensors(texts: Sequence[str], prefix: str) -> tuple[Port, ...]:
    """Ports of such shapes with invented names where the card leaves them open."""
    ports = []
    for number, text in enumerate(texts):
        name, shape = re.fullmatch(r"(\S*) ?\[(.*)\]", text).groups()
        sizes = tuple(map(size, shape.split(", "))) if shape else ()
        ports.append(Port(name or f"{prefix}{number}", "float32", sizes))
    return tuple(ports)


def size(text: str) -> int | str:
    if text.isdigit() or text == "N":
        return int(text) if text.isdigit() else "n"
    times, letter, parts = re.fullmatch(r"(\d*)([A-Z])(?:/(\d+))?", text).groups()
    return int(SIZES[letter]) * int(times or 1) // int(parts or 1)


def fitting(fits: Fits) -> Model:
    """A model that a card is for, as the trial sees it."""
    inputs, outputs = tensors(fits.takes, "in"), tensors(fits.gives, "out")
    name = fits.files[0].replace("*", "-1-") if fits.files else "theirs"
    least = fits.parameters if isinstance(fits.parameters, int) else (fits.parameters or (1000, 0))[0]
    model = Model(Path(f"{name}.onnx"), inputs, outputs, parameters=least + 4)
    sides = [side for side in inputs[0].shape[1:] if isinstance(side, int) and side not in (1, 3)]
    return Model(model.path, inputs, outputs, parameters=least + 4, picture_values=np.zeros((*sides[:2], 3), "f4"))


def values(lines: Any) -> Mapping[str, Any]:
    return {line.field: line.value for line in lines}


@pytest.mark.parametrize("name", CARDS)
def test_each_card_is_given_to_the_models_that_it_is_for_and_is_a_model_card(name: str) -> None:
    card = shipped_cards()[name]
    for fits in card.fits:
        model = fitting(fits)
        lines = lines_of_shipped(model, {})
        assert values(lines)["description"].startswith(card.description), f"another card: {lines[0].why}"
        made = Proposal(model, merged([lines], model.path.stem)).card()
        assert made.heads == card.heads
        assert made.name == (card.name or model.path.stem.strip("-"))
        assert len(made.description) <= 500


@pytest.mark.parametrize("name", CARDS)
def test_no_card_is_given_to_a_model_of_another_form(name: str) -> None:
    for fits in shipped_cards()[name].fits:
        model = fitting(fits)
        last = model.outputs[-1]
        outputs = (*model.outputs[:-1], Port(last.name, last.dtype, (*last.shape[:-1], int(last.shape[-1]) + 2)))
        assert fits.match(model) is not None
        assert fits.match(replace(model, outputs=outputs)) is None
        assert fits.match(replace(model, outputs=(*model.outputs, replace(last, name="more")))) is None
        assert fits.match(replace(model, inputs=(*model.inputs, Port("more", "float32", ())))) is None
        if fits.parameters is not None:
            assert fits.match(replace(model, parameters=3 * model.parameters)) is None


def test_a_name_alone_gets_no_card_and_the_graph_under_another_name_neither(tmp_path: Path) -> None:
    for name, graph, fits in (
        ("realesr_animevideov3-x4", compact(16), True),
        ("realesr-animevideov3", convolutions(4, 4), False),
        ("theirs", compact(16), False),
    ):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(graph)
        with new_files() as new:
            found = find(path, new)
        lines = propose(found.path, found.content, found.name).lines
        assert ("inputs.0.tile" in values(lines)) == fits, name
        assert all(line.sure is Sure.certain for line in lines) == fits, name
        if fits:
            assert values(lines)["inputs.0.overlap"] == 18
            assert values(lines)["name"] == "realesr-animevideov3"


def test_files_beside_the_model_go_before_a_card_and_a_card_before_suppositions() -> None:
    card = shipped_cards()["yolox"]
    model = fitting(card.fits[0])
    lines = lines_of_shipped(model, {"heads.0.labels": ["a"] * 80, "heads.0.decoder": "yolox"})
    assert values(lines)["heads.0.decoder"] == "yolox"
    assert not lines_of_shipped(model, {"heads.0.decoder": "yolov8"}), "the graph shows another decoder"


def test_cards_name_the_labels_of_coco() -> None:
    """In one list: no card writes them itself. By category they have gaps: a toothbrush is 79, and category 90."""
    texts = [path.read_text() for path in FOLDER.glob("*.toml")]
    assert texts
    assert not [text for text in texts if '"toothbrush"' in text]
    for name, last, gaps in (("yolox", 79, 0), ("nanodet", 79, 0), ("rt-detr", 79, 0), ("rf-detr", 90, 11)):
        labels = shipped_cards()[name].heads[0].options["labels"]
        assert isinstance(labels, list)
        assert (labels.index("toothbrush"), labels.count("N/A")) == (last, gaps)
        assert [each for each in labels if each != "N/A"] == list(COCO)


def test_labels_that_do_not_exist_are_one_line(tmp_path: Path) -> None:
    text = (FOLDER / "yolox.toml").read_text()
    (path := tmp_path / "mine.toml").write_text(text.replace('labels = "coco"', 'labels = "cocoa"'))
    with pytest.raises(ModelError, match="there are no labels cocoa: there are coco, coco by category"):
        load_card(path)


def test_a_graph_of_one_size_gets_tiles_of_that_size(tmp_path: Path) -> None:
    path = tmp_path / "realesr-animevideov3.onnx"
    path.write_bytes(compact(16, 96, 128))
    found = values(propose(path, path.read_bytes()).lines)
    assert found["inputs.0.tile"] == [96, 128]
    assert "inputs.0.size" not in found


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[N, 3, H, W]", "[N, three]", "fits.0.takes"),
        ("tile =", "tiel =", "tiel"),
        ("[[fits]]", "[[fit]]", "fits"),
        ("description", "text", "description"),
    ],
)
def test_a_wrong_card_is_one_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    text = Path(load_card.__code__.co_filename).with_name("cards").joinpath("realesr-animevideov3.toml").read_text()
    (tmp_path / "mine.toml").write_text(text.replace(old, new))
    with pytest.raises(ModelError, match=r"mine\.toml") as caught:
        load_card(tmp_path / "mine.toml")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_may_be_parts_of_others() -> None:
    fits = ShippedCard.model_validate(
        {"description": "d", "fits": [{"takes": ["x [N, 3, 48, W]"], "gives": ["[N, W/8, 97]"]}]}
    ).fits[0]
    inputs = (Port("x", "float32", (1, 3, 48, 320)),)
    assert fits.match(Model(Path("m"), inputs, (Port("y", "float32", (1, 40, 97)),))) == (0,)
    assert fits.match(Model(Path("m"), inputs, (Port("y", "float32", (1, 44, 97)),))) is None
