"""rigflow's own pass, which fleets are held against byte for byte, beside a reference that shares no code with it."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest

from engines.models.catalogue import builtin_model
from engines.part import Array
from pipelines.registry import builtin_pipeline
from tests import own_pass, reference
from tests.clips import Clip, generated, real_clip
from tests.reference import COSINE, FINGERPRINT, SCORE, SHOTCHANGE, VALUES, Looks

MEDIA = (
    Clip(),
    Clip(rotation=90),
    Clip(vfr=True),
    Clip(codec="vp9", container="webm"),
    Clip(size=(75, 131), pixel_format="yuv444p"),
    "bikes",
    "carphone_pristine",
    pytest.param("bigbuckbunny", marks=pytest.mark.slow),
)


def path_of(media: Clip | str) -> Path:
    return real_clip(media) if isinstance(media, str) else generated(media)


def both(media: Clip | str, pipeline: str, looks: Looks) -> tuple[Array, Array]:
    """The answers of rigflow's own pass and of the reference, once their times and pictures are alike."""
    path, spec = path_of(media), builtin_pipeline(pipeline)
    _, model = builtin_model(next(iter(spec.model_names.values())))
    _, pictures = own_pass.windows_of(path, spec)
    _, expected_pictures = reference.windows_of(path, looks)
    distances = np.abs(np.stack(pictures).astype(float) - expected_pictures)
    assert distances.mean() < VALUES
    times, answers = own_pass.answers_of(path, spec)
    expected_times, expected = reference.answers_of(path, model, looks)
    np.testing.assert_array_equal(times, expected_times)
    print(f"{path.name}: pictures {distances.mean():.2f} of 255 apart, answers {np.abs(answers - expected).max():.5f}")
    return answers, expected


@pytest.mark.parametrize("media", MEDIA, ids=str)
def test_fingerprints_are_those_of_the_reference(media: Clip | str) -> None:
    answers, expected = both(media, "fingerprint", FINGERPRINT)
    assert (answers * expected).sum(axis=-1).min() > COSINE


@pytest.mark.parametrize("media", MEDIA, ids=str)
def test_shot_changes_are_those_of_the_reference(media: Clip | str) -> None:
    answers, expected = both(media, "scenes", SHOTCHANGE)
    np.testing.assert_allclose(answers, expected, atol=SCORE)


def test_the_reference_shares_no_code_with_rigflow() -> None:
    tree = ast.parse(Path(reference.__file__).read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    packages = {name.split(".")[0] for name in imported} - set(sys.stdlib_module_names)
    assert packages == {"PIL", "av", "numpy", "onnxruntime"}
