"""Classes by name: those of rigflow, and those of packages that are installed beside it."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engines import registry
from engines.models.catalogue import load_model
from engines.planned import Tensor
from schemas.errors import ExitCode, ModelError
from schemas.model import ModelCard
from tests.cli import rigflow
from tests.example_plugin import forget
from tests.simulated import write_model


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that packages are installed in, on the path; what is cached of packages is forgotten."""
    monkeypatch.syspath_prepend(str(tmp_path))
    forget()
    yield tmp_path
    forget()


def install(site: Path, package: str, entries: str, code: str = "class Example:\n    pass\n") -> None:
    """What an installer leaves behind of a package with one module."""
    info = site / f"{package}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(entries)
    (site / "example_plugin.py").write_text(code)


@pytest.mark.parametrize("group", registry.GROUPS)
def test_every_class_of_rigflow_is_there(group: str) -> None:
    for name in registry.GROUPS[group].classes:
        assert isinstance(registry.load(group, name), type)
        assert registry.plugin(group, name) is None


def test_a_package_adds_a_class(site: Path) -> None:
    install(site, "example", "[rigflow.heads]\nexample = example_plugin:Example\n")
    assert registry.load("heads", "example").__module__ == "example_plugin"
    assert "example" in registry.names("heads")
    assert "example" not in registry.names("decoders")
    expected = registry.Plugin("heads", "example", "example", "1.2")
    assert registry.plugin("heads", "example") == expected
    assert expected in registry.plugins()


def test_an_unknown_name_lists_what_there_is(site: Path) -> None:
    install(site, "example", "[rigflow.heads]\nexample = example_plugin:Example\n")
    with pytest.raises(ModelError, match=r"there is no head nothing: there are .*example"):
        registry.load("heads", "nothing")


def test_a_package_that_cannot_be_imported_says_why(site: Path) -> None:
    install(site, "example", "[rigflow.heads]\nexample = example_plugin:Example\n", "import not_installed\n")
    reason = r"the head example of the package example cannot be imported: ModuleNotFoundError: .*not_installed"
    with pytest.raises(ModelError, match=reason):
        registry.load("heads", "example")


def test_two_packages_with_one_name_are_refused(site: Path) -> None:
    for package in ("first", "second"):
        install(site, package, "[rigflow.heads]\nexample = example_plugin:Example\n")
    with pytest.raises(ModelError, match="adds the head example, a name that exists already"):
        registry.load("heads", "example")


def test_a_backend_that_is_not_there_is_refused_before_a_command_begins() -> None:
    refused = rigflow("engine", "list", RIGFLOW_BACKEND="nothing")
    assert refused.returncode == ExitCode.USAGE
    there = ", ".join(registry.names("backends"))
    assert f"setting backend: there is no nothing: there are {there}" in refused.stderr


def test_a_card_names_its_backend_and_keeps_it(tmp_path: Path) -> None:
    write_model(tmp_path)
    card, _ = load_model(tmp_path / "simulated.onnx")
    assert card.backend == "simulated"
    assert card.identity != card.model_copy(update={"backend": None}).identity


@pytest.mark.parametrize("group", ["heads", "decoders"])
def test_the_documents_name_every_class(group: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "heads.md").read_text()
    assert [name for name in registry.GROUPS[group].classes if f"\n| `{name}` |" not in text] == []


def test_the_card_of_the_documents_can_be_read() -> None:
    text = (Path(__file__).parents[2] / "docs" / "heads.md").read_text()
    (spec,) = ModelCard.model_validate(tomllib.loads(text.split("```toml\n")[1].split("```")[0])).heads
    outputs = {"output0": Tensor("float32", ("N", 6, 8400))}
    head = registry.load("heads", spec.kind)(spec.options, outputs, None)
    assert head.plan()["classes"].labels == ("cat", "dog")
