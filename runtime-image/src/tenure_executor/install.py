"""Puts the executor where the workspace container finds it: `python3 -m tenure_executor.install DIRECTORY`.

The container's image is the user's and has nothing of ours but this one file, which Python runs as it is.
"""

import os
import sys
import zipfile
from pathlib import Path

EXECUTOR = "executor.pyz"
_MAIN = f"from {__package__}.executor import main\n\nmain()\n"


def install(directory: Path) -> Path:
    """Makes the file, whole or not at all. Raises `OSError`."""
    package, target = Path(__file__).parent, directory / EXECUTOR
    partial = directory / f".{EXECUTOR}.partial"
    with zipfile.ZipFile(partial, "w") as archive:
        for source in sorted(package.glob("*.py")):
            if source != Path(__file__):
                archive.write(source, f"{package.name}/{source.name}")
        archive.writestr("__main__.py", _MAIN)
    partial.chmod(0o644)
    os.replace(partial, target)
    return target


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python3 -m tenure_executor.install DIRECTORY")
    install(Path(sys.argv[1]))
