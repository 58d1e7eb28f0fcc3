"""How the modules import each other: one way between the rooms, in no circle, and no private names.

Every import counts, also one inside a function or for types only. A package's implicit import does not.
"""

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "engines", "pipelines", "workers", "cli")  # each imports only itself and what stands before it
Graph = Mapping[str, set[str]]


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


TREES = {
    name_of(path): ast.parse(path.read_text())
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports_of(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each module of ours that a tree imports, and the name that it takes of it ("": the module itself)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in TREES)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                if (module := f"{node.module}.{alias.name}") in TREES:
                    yield module, ""
                elif node.module in TREES:
                    yield node.module, alias.name


GRAPH = {module: {imported for imported, _ in imports_of(tree)} for module, tree in TREES.items()}


def circle_in(graph: Graph) -> str:
    """A circle of a graph in words; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " <- ".join(error.args[1])
    return ""


def folder_of(module: str) -> str:
    """The sub-package, or the module beside the sub-packages, that a module of engines belongs to."""
    return ".".join(module.split(".")[:2])


def test_a_circle_is_found() -> None:
    assert set(circle_in({"a": {"b"}, "b": {"c"}, "c": {"b"}}).split(" <- ")) == {"b", "c"}
    tree = ast.parse("def late():\n    from engines import part\n    import schemas.wire\n")
    assert set(imports_of(tree)) == {("engines.part", ""), ("schemas.wire", "")}


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circle_in(GRAPH) == ""


def test_no_folders_of_engines_import_each_other_in_a_circle() -> None:
    folders: dict[str, set[str]] = {}
    for module, imported in GRAPH.items():
        if module.startswith("engines."):
            beside = {folder_of(each) for each in imported if each.startswith("engines.")}
            folders.setdefault(folder_of(module), set()).update(beside - {folder_of(module)})
    assert circle_in(folders) == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way_between_the_rooms(package: str) -> None:
    below = PACKAGES[: PACKAGES.index(package) + 1]
    wrong = [
        f"{module} imports {each}"
        for module, imported in GRAPH.items()
        for each in sorted(imported)
        if module.split(".")[0] == package and each.split(".")[0] not in below
    ]
    assert wrong == []


def test_engines_ask_what_a_medium_is_like_and_not_for_its_name() -> None:
    asking = {
        module
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute) and node.left.attr == "kind"
        for each in node.comparators
        if isinstance(each, ast.Constant) and each.value in ("image", "video") and module.startswith("engines.")
    }
    assert asking == set()


def test_no_private_name_of_another_module_is_imported() -> None:
    wrong = [
        f"{module} imports {name} of {imported}"
        for module, tree in TREES.items()
        for imported, name in imports_of(tree)
        if any(part.startswith("_") and not part.endswith("__") for part in (*imported.split("."), name))
    ]
    assert wrong == []
