"""The heads classify, tag, embed and raw, against loops in plain Python."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from engines.heads.classify import Classify
from engines.heads.embed import Embed
from engines.heads.raw import Raw
from engines.heads.tag import Tag
from engines.part import Value
from engines.planned import Tensor
from engines.ragged import Ragged
from engines.registry import load
from schemas.errors import ModelError
from tests.unit.detector_cases import ROWS, VIEWS, sigmoid, softmax, uniform
from tests.unit.head_reference import described

LABELS = ("safe", "risky", "cat", "dog", "tree", "alice", "bob")
CATEGORIES = ("rating", "rating", "general", "general", "general", "character", "character")
SCORES = {"none": lambda row: row, "softmax": softmax, "sigmoid": lambda row: [sigmoid(each) for each in row]}


@pytest.mark.parametrize("activation", SCORES)
@pytest.mark.parametrize("inner", [(20,), (20, 1, 1)])
def test_classes_are_those_of_the_reference(activation: str, inner: tuple[int, ...]) -> None:
    outputs = {"logits": uniform(*inner, low=-4, high=4)}
    labels = tuple(f"class {number}" for number in range(20))
    head = Classify({"top": 3, "activation": activation, "labels": labels}, described(outputs), None)
    found = head.decode(outputs, VIEWS)
    assert head.plan() == {
        "classes": Tensor("int32", ("N", 3), labels=labels),
        "scores": Tensor("float32", ("N", 3)),
    }
    assert {name: (value.dtype.name, value.shape) for name, value in found.items()} == {
        "classes": ("int32", (ROWS, 3)),
        "scores": ("float32", (ROWS, 3)),
    }
    for number in range(ROWS):
        scores = SCORES[activation](outputs["logits"][number].reshape(-1).tolist())
        expected = sorted(range(20), key=lambda label: -scores[label])[:3]
        assert found["classes"][number].tolist() == expected
        np.testing.assert_allclose(found["scores"][number], [scores[label] for label in expected], rtol=1e-5)


def test_of_equal_scores_the_first_class_comes_first() -> None:
    outputs = {"o": np.array([[0.2, 0.4, 0.4, 0.0]], np.float32)}
    found = Classify({"top": 3}, described(outputs), None).decode(outputs, VIEWS[:1])
    assert found["classes"].tolist() == [[1, 2, 0]]


def wd_tags(row: list[float], thresholds: Mapping[str, float]) -> list[int]:
    """What a tagger's script gives of one picture: the best rating, and what exceeds its category's threshold."""
    found = {max((0, 1), key=lambda tag: row[tag])}
    for tag, score in enumerate(row):
        if CATEGORIES[tag] != "rating" and score > thresholds[CATEGORIES[tag]]:
            found.add(tag)
    return sorted(found, key=lambda tag: -row[tag])


def test_tags_are_those_of_the_reference() -> None:
    outputs = {"output": uniform(len(LABELS))}
    options = {
        "labels": LABELS,
        "categories": CATEGORIES,
        "threshold": 0.3,
        "thresholds": {"character": 0.7},
        "best_only": ["rating"],
    }
    head = Tag(options, described(outputs), None)
    found = head.decode(outputs, VIEWS)
    tags, scores = found["tags"], found["scores"]
    assert isinstance(tags, Ragged)
    assert isinstance(scores, Ragged)
    assert (tags.values.dtype, scores.values.dtype) == (np.int32, np.float32)
    assert head.plan()["tags"] == Tensor("int32", ("N", "count"), True, LABELS, CATEGORIES)
    for number in range(ROWS):
        row = outputs["output"][number].tolist()
        expected = wd_tags(row, {"general": 0.3, "character": 0.7})
        assert tags.row(number).tolist() == expected
        np.testing.assert_allclose(scores.row(number), [row[tag] for tag in expected])
        alone = head.decode({"output": outputs["output"][number : number + 1]}, VIEWS[:1])["tags"]
        assert isinstance(alone, Ragged)
        assert alone.values.tolist() == expected


def test_a_classifier_of_few_classes_gives_all_of_them() -> None:
    outputs = {"output": np.array([[0.2, 0.8]], np.float32)}
    head = Classify({"labels": ["no", "yes"]}, described(outputs), None)
    assert head.decode(outputs, VIEWS[:1])["classes"].tolist() == [[1, 0]]  # type: ignore[union-attr]
    assert head.plan()["classes"].shape == ("N", 2)


def test_tags_need_no_categories() -> None:
    outputs = {"output": np.array([[-1, 3, 0.1], [-1, -2, -3]], np.float32)}
    head = Tag({"labels": ["a", "b", "c"], "threshold": 0.5, "activation": "sigmoid"}, described(outputs), None)
    tags = head.decode(outputs, VIEWS[:2])["tags"]
    assert isinstance(tags, Ragged)
    assert (tags.values.tolist(), tags.offsets.tolist()) == ([1, 2], [0, 2, 2])


def test_hidden_categories_are_left_out() -> None:
    outputs = {"output": np.ones((1, len(LABELS)), np.float32)}
    options = {"labels": LABELS, "categories": CATEGORIES, "hidden": ["rating", "character"]}
    tags = Tag(options, described(outputs), None).decode(outputs, VIEWS[:1])["tags"]
    assert isinstance(tags, Ragged)
    assert tags.values.tolist() == [2, 3, 4]


def test_embeddings_have_unit_length_and_zeros_stay() -> None:
    vectors = np.concatenate([uniform(8, 1, 1, low=-1, high=1), np.zeros((1, 8, 1, 1), np.float32)])
    found = Embed({}, described({"o": vectors}), None).decode({"o": vectors}, [*VIEWS, VIEWS[0]])["embedding"]
    for vector, row in zip(vectors.reshape(-1, 8).tolist(), found, strict=True):
        length = math.sqrt(sum(each * each for each in vector)) or 1
        np.testing.assert_allclose(row, [each / length for each in vector], rtol=1e-6)
    plain = Embed({"normalise": False}, described({"o": vectors}), None).decode({"o": vectors}, VIEWS)
    np.testing.assert_array_equal(plain["embedding"], vectors.reshape(-1, 8))


def test_raw_gives_the_output_as_it_is() -> None:
    outputs: dict[str, Value] = {"a": uniform(2), "b": uniform(3)}
    head = Raw(
        {"output": "b", "labels": ["x", "y", "z"]},
        {n: Tensor("float32", ("N", k)) for n, k in (("a", 2), ("b", 3))},
        None,
    )
    assert head.decode(outputs, VIEWS) == {"b": outputs["b"]}
    assert head.plan() == {"b": Tensor("float32", ("N", 3), labels=("x", "y", "z"))}


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("classify", {"top": 8}, "head classify: top = 8 of 7 classes: lower top"),
        ("classify", {"labels": ["a"]}, "head classify: 1 labels for 7 classes: give a label for each class"),
        ("classify", {"activation": "tanh"}, "head classify, option activation: there are none, sigmoid, softmax"),
        ("tag", {}, "head tag, option labels: missing: the options of head tag are: output, labels"),
        ("tag", {"labels": LABELS, "categories": ["x"]}, "head tag: 1 categories for 7 labels"),
        (
            "tag",
            {"labels": LABELS, "categories": CATEGORIES, "best_only": ["r"]},
            "there is no category r: the categories",
        ),
        ("embed", {"output": "none"}, "head embed: the model has no output none: its outputs are: o"),
    ],
)
def test_errors_say_what_to_do(kind: str, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load("heads", kind)(options, {"o": Tensor("float32", ("N", len(LABELS)))}, None)


def test_several_outputs_need_a_name() -> None:
    outputs = {name: Tensor("float32", ("N", 9)) for name in ("a", "b")}
    with pytest.raises(ModelError, match=r'the model has several outputs: name one by output = "\.\.\.", of: a, b'):
        Classify({}, outputs, None)
