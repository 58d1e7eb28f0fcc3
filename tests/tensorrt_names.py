"""What the Python bindings of each TensorRT release call things: read from the wheels, kept in tensorrt_names.json.

`python -m tests.tensorrt_names WHEEL...` reads wheels of `tensorrt_bindings` (8.6) or `tensorrt_cu12_bindings` (10, 11)
for this Python, on any machine: it loads them over empty libraries, for naming needs none of what is inside.
Needs gcc, nm and readelf.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TABLE = Path(__file__).with_suffix(".json")
CLASSES = (
    "Logger", "Builder", "BuilderFlag", "IBuilderConfig", "INetworkDefinition", "NetworkDefinitionCreationFlag",
    "OnnxParser", "IOptimizationProfile", "MemoryPoolType", "ITensor", "Runtime", "ICudaEngine", "IExecutionContext",
    "TensorIOMode", "DataType", "ILogger", "IHostMemory", "ParserError", "ComputeCapability", "IRuntimeConfig",
    "IRuntimeCache", "CudaGraphStrategy",
)  # fmt: skip
_DUMP = """
import sys, json; sys.path.insert(0, sys.argv[1])
import tensorrt as module
names = {"": sorted(n for n in dir(module) if n in sys.argv[2:] or n == "nptype")}
for name in sys.argv[2:]:
    if hasattr(module, name):
        names[name] = sorted(n for n in dir(getattr(module, name)) if n[0] != "_")
print(json.dumps(names))
"""


def names_of(module: object) -> dict[str, list[str]]:
    """Public names of a loaded module (under "") and of the classes that rigflow touches."""
    names = {"": sorted(name for name in dir(module) if name in CLASSES or name == "nptype")}
    for name in CLASSES:
        if hasattr(module, name):
            names[name] = sorted(inner for inner in dir(getattr(module, name)) if inner[0] != "_")
    return names


def read_wheel(wheel: Path) -> dict[str, list[str]]:
    """`names_of` the bindings in a wheel."""
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(wheel) as archive:
            [bindings] = [name for name in archive.namelist() if name.endswith("/tensorrt.so")]
            library = Path(archive.extract(bindings, folder))
        _stub(library, Path(folder))
        ended = subprocess.run(
            [sys.executable, "-c", _DUMP, str(library.parent), *CLASSES],
            env=os.environ | {"LD_LIBRARY_PATH": folder},
            stdout=subprocess.PIPE,
            check=True,
        )
    found: dict[str, list[str]] = json.loads(ended.stdout)
    return found


def _stub(library: Path, folder: Path) -> None:
    """Libraries of the names that the bindings link, with the symbols that they want and nothing behind them."""
    wanted = _output("nm", "-D", "--undefined-only", str(library))
    symbols = [line.split()[-1] for line in wanted.splitlines() if "@" not in line and " w " not in line]
    symbols = [symbol for symbol in symbols if not re.match(r"_?Py|_ITM|_ZGT", symbol)]
    source = folder / "stub.c"
    # a typeinfo is read when a class is declared: it needs a name
    code = 'static char name[] = "stub";\n' + "".join(
        f"void *{symbol}[8] = {{name, name, name}};\n"
        if symbol.startswith("_ZT")
        else f"void *{symbol}() {{return 0;}}\n"
        for symbol in symbols
    )
    source.write_text(code)
    needed = re.findall(r"\[(libnv[^]]+)\]", _output("readelf", "-d", str(library)))
    for number, name in enumerate(needed):
        given = [str(source)] if number == 0 else ["-xc", "/dev/null"]
        subprocess.run(
            ["gcc", "-w", "-shared", "-fPIC", *given, f"-Wl,-soname,{name}", "-o", str(folder / name)], check=True
        )


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main(wheels: list[str]) -> None:
    """Read wheels and write the table."""
    table = {Path(wheel).name.split("-")[1]: read_wheel(Path(wheel)) for wheel in wheels}
    lines = ",\n".join(
        f' "{version}": {{\n'
        + ",\n".join(f'  "{name}": {json.dumps(" ".join(inner))}' for name, inner in names.items())
        + "\n }"
        for version, names in table.items()
    )
    TABLE.write_text("{\n" + lines + "\n}\n")


def table() -> dict[str, dict[str, list[str]]]:
    """Version -> class (or "" for the module itself) -> its public names."""
    read = json.loads(TABLE.read_text())
    return {version: {name: inner.split() for name, inner in names.items()} for version, names in read.items()}


if __name__ == "__main__":
    main(sys.argv[1:])
