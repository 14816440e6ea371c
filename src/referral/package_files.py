"""Files of installed packages that are not imported."""

from importlib.util import find_spec
from pathlib import Path


def package_folder(package: str) -> Path:
    """Return a package's folder without importing the package, whose imports may be missing."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(f"The package '{package}' is not installed.")
    return Path(spec.submodule_search_locations[0])
