"""Optional packages, the extras of pyproject.toml: what to type where one is missing."""


def install_extra(name: str) -> str:
    """Return how to install an extra beside an installed rigflow."""
    return f"install the extra {name}: pip install 'rigflow[{name}]'"
