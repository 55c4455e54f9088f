"""The Pythons of this machine."""

import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Collection


def interpreters(versions: Collection[str]) -> dict[str, str]:
    """Paths of the Pythons that are found, on the path or in pyenv's folder, by versions such as 3.12."""
    root = pathlib.Path(os.environ.get("PYENV_ROOT", pathlib.Path.home() / ".pyenv"))
    paths = [shutil.which(f"python{version}") for version in versions]
    paths += [*sorted(map(str, root.glob("versions/3.*/bin/python"))), sys.executable]
    found: dict[str, str] = {}
    for path in filter(None, paths):
        command = [path, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
        asked = subprocess.run(command, capture_output=True, text=True)
        version = asked.stdout.strip()
        if asked.returncode == 0 and version in versions:
            found.setdefault(version, path)
    return found
