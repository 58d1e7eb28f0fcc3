"""What keeps the house in order: how the modules import each other, how long they are, and where kinds are named.

Imports go one way between the rooms, in no circle, and take no private names. Every import counts, also one inside a
function or for types only. A package's implicit import does not. The lists of exceptions may only become shorter.
"""

import ast
import gc
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from engines.registry import GROUPS

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "schemas",
    "placement",
    "engines",
    "pipelines",
    "workers",
    "gateway",
    "cli",
)  # each imports only itself and what stands before it
Graph = Mapping[str, set[str]]
LINES, TEST_LINES, FUNCTION_LINES = 300, 400, 40


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def parsed(path: Path) -> ast.Module:
    gc.disable()
    try:
        return ast.parse(path.read_text())
    finally:
        gc.freeze()  # a million nodes stay; to look through them for garbage takes longer than to parse them
        gc.enable()


@cache
def walked(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes of a tree."""
    return tuple(ast.walk(tree))


@cache
def trees() -> Mapping[str, ast.Module]:
    """The syntax tree of each of our modules, by name."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {name_of(path): parsed(path) for path in paths}


def imports_of(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Each module of ours that a tree imports, and the name that it takes of it ("": the module itself)."""
    for node in walked(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name in trees())
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            for alias in node.names:
                if (module := f"{node.module}.{alias.name}") in trees():
                    yield module, ""
                elif node.module in trees():
                    yield node.module, alias.name


@cache
def graph() -> Graph:
    """Which of our modules each of them imports."""
    return {module: {imported for imported, _ in imports_of(tree)} for module, tree in trees().items()}


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
    assert circle_in(graph()) == ""


def test_no_folders_of_engines_import_each_other_in_a_circle() -> None:
    folders: dict[str, set[str]] = {}
    for module, imported in graph().items():
        if module.startswith("engines."):
            beside = {folder_of(each) for each in imported if each.startswith("engines.")}
            folders.setdefault(folder_of(module), set()).update(beside - {folder_of(module)})
    assert circle_in(folders) == ""


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way_between_the_rooms(package: str) -> None:
    below = PACKAGES[: PACKAGES.index(package) + 1]
    wrong = [
        f"{module} imports {each}"
        for module, imported in graph().items()
        for each in sorted(imported)
        if module.split(".")[0] == package and each.split(".")[0] not in below
    ]
    assert wrong == []


def test_only_the_media_themselves_know_what_they_are_called() -> None:
    """A comparison with the name of a medium is one that a new medium would have to be added to."""
    assert [texts & MEDIA for texts in compared(ast.parse("file.kind == 'image' or {'video'} & kinds"))] == [{"image"}]
    knowing = {
        module
        for module, tree in trees().items()
        if any(texts & MEDIA for texts in (*compared(tree), *literals_of(tree), *given_kinds(tree)))
    }
    inside = {module for module in knowing if module.startswith(("engines.media.", *PROTOCOLS))}
    others = {"engines.outputs.preview", "engines.outputs.tracks", "engines.models.companions.text"}
    what = "there `image` is an array that heads make, `audio` a track of FFmpeg's, and `text` a tower of CLIP"
    assert knowing - inside == others, what


def test_no_private_name_of_another_module_is_imported() -> None:
    wrong = [
        f"{module} imports {name} of {imported}"
        for module, tree in trees().items()
        for imported, name in imports_of(tree)
        if any(part.startswith("_") and not part.endswith("__") for part in (*imported.split("."), name))
    ]
    assert wrong == []


MEDIA = set(GROUPS["media"].classes)
PROTOCOLS = ("gateway.openai.",)  # their words are those of others, and some are names of ours by chance


def compared(tree: ast.AST) -> Iterator[set[str]]:
    """The texts on either side of each comparison."""
    for node in walked(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            yield {each.value for side in sides for each in ast.walk(side) if isinstance(each, ast.Constant)}


def given_kinds(tree: ast.AST) -> Iterator[set[str]]:
    """The texts that are given as `kind`, or as the default of `media`."""
    for node in walked(tree):
        if isinstance(node, ast.keyword) and node.arg == "kind":
            yield {each.value for each in ast.walk(node.value) if isinstance(each, ast.Constant)}
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "media":
            yield {each.value for each in ast.walk(node.value or node) if isinstance(each, ast.Constant)}


def python_files(*folders: str) -> Iterator[Path]:
    return (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))


def longer_than(lines: int, *folders: str) -> set[str]:
    return {
        str(path.relative_to(ROOT)) for path in python_files(*folders) if len(path.read_text().splitlines()) > lines
    }


def test_no_file_is_too_long() -> None:
    assert longer_than(LINES, *PACKAGES, "benchmarks") == set()
    assert longer_than(TEST_LINES, "tests") == set()


def test_no_function_is_too_long() -> None:
    """A function's lines, without its docstring."""
    long = set()
    for path in python_files(*PACKAGES, "benchmarks"):
        for node in walked(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[ast.get_docstring(node) is not None and len(node.body) > 1]
                if (node.body[-1].end_lineno or 0) - first.lineno >= FUNCTION_LINES:
                    long.add(f"{path.relative_to(ROOT)} {node.name}")
    assert long == set()


def registered() -> set[str]:
    """The names of all operators, formats, heads, decoders and backends.

    Five of them have another meaning, too: `image` and `video` are kinds of media, `segment` is a type of message,
    `crop` is how a picture fits a size, and `keypoints` is an array.
    """
    others = {"image", "video", "segment", "crop", "keypoints"}
    return {name for group in GROUPS.values() for name in group.classes} - others


def literals_of(tree: ast.AST) -> Iterator[set[str]]:
    """The texts of each `Literal[...]`."""
    for node in walked(tree):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Literal":
            yield {each.value for each in ast.walk(node.slice) if isinstance(each, ast.Constant) and each.value}


def compared_kinds(tree: ast.AST) -> Iterator[set[str]]:
    """The texts that something called `kind`, `format`, `backend` or `decoder` is compared with."""
    for node in walked(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            names = {side.attr if isinstance(side, ast.Attribute) else getattr(side, "id", "") for side in sides}
            if names & {"kind", "format", "backend", "decoder"}:
                yield {each.value for side in sides for each in ast.walk(side) if isinstance(each, ast.Constant)}


def test_no_name_of_a_registry_is_in_a_literal_or_an_if() -> None:
    """What may be named is what `engines.registry` has; a module that lists names itself has to be changed for each."""
    assert set.union(*literals_of(ast.parse('Literal["source"] | Literal["npz", 1]'))) == {"source", "npz", 1}
    assert list(compared_kinds(ast.parse('stage.kind in ("infer", "x") or kind == "npz" or a == "b"')))
    names = registered()
    ours = {module: tree for module, tree in trees().items() if not module.startswith(PROTOCOLS)}
    in_literals = {module for module, tree in ours.items() if any(each & names for each in literals_of(tree))}
    in_ifs = {module for module, tree in ours.items() if any(each & names for each in compared_kinds(tree))}
    assert in_literals == set()
    assert in_ifs == set()


def sizes_by_hand(tree: ast.AST) -> Iterator[str]:
    """The texts with a unit of bytes behind a number that is divided or shifted there: `f"{most >> 20} MB"`."""
    for node in walked(tree):
        for number, unit in pairwise(node.values if isinstance(node, ast.JoinedStr) else []):
            match number, unit:
                case (
                    ast.FormattedValue(ast.BinOp(op=ast.RShift() | ast.Div() | ast.FloorDiv())),
                    ast.Constant(str(words)),
                ) if re.match(r"[\s-]?[kKMGT]i?B\b", words):
                    yield ast.unparse(node)


def test_sizes_in_texts_are_those_of_one_function() -> None:
    """`schemas.text.size`: a shift by 20 bits gives MiB, and beside the word MB the number is wrong by 5 %."""
    wrong = "f'{most >> 20} MB, {a / 2**30:.1f} GiB', f'{n} MB', f'{n - 1} kB', f'{(n << 10) // 1024:,}kB'"
    assert len(list(sizes_by_hand(ast.parse(wrong)))) == 3
    by_hand = {module: text for module, tree in trees().items() for text in sizes_by_hand(tree)}
    assert by_hand.keys() == {"schemas.text"}, by_hand


def test_two_modules_use_private_names_of_nats_py() -> None:
    private = re.compile(r"\b(nc|client|subscription|_subscription)\._[a-z]")
    users = {
        path.name for path in python_files("pipelines", "workers", "gateway", "cli") if private.search(path.read_text())
    }
    assert users <= {"nats_client.py", "nats_parser.py"}
    listed = set(re.findall(r"`(?:Subscription\.)?(_\w+)`", (ROOT / "pipelines/nats_client.py").read_text()))
    known = {*dir(Client), *vars(Client()), *vars(Subscription(Client()))}
    assert listed <= known, "names that this release of nats-py does not have"


def defined_in(tree: ast.Module) -> set[str]:
    """The names that a module has at its top level, also those that it imports."""
    names: set[str] = set()
    for node in ast.walk(ast.Module([each for each in tree.body if not isinstance(each, ast.ClassDef)], [])):
        if isinstance(node, ast.ImportFrom | ast.Import):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names | {node.name for node in tree.body if isinstance(node, ast.ClassDef)}


def test_what_tests_and_benchmarks_import_is_there() -> None:
    """mypy does not read them, and those of GPUs and of other packages are rarely imported."""
    wrong, known = [], {module: defined_in(tree) for module, tree in trees().items()}
    for path in python_files("tests", "benchmarks"):
        for node in walked(parsed(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
                wrong += [
                    f"{path.relative_to(ROOT)}: {node.module}.{alias.name}"
                    for alias in node.names
                    if alias.name not in known.get(node.module or "", set())
                    and f"{node.module}.{alias.name}" not in trees()
                ]
    assert wrong == []


def test_git_ignores_the_folders_that_the_readme_writes() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    written = set(re.findall(r"--out (\w[\w-]*)", (ROOT / "README.md").read_text()))
    assert written
    assert {f"/{folder}/" for folder in written} <= {*ignored}
