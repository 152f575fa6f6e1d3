"""Make the pictures of docs/app.md: python docs/make_app_pictures.py, with '.[dev,app-tests]'.

They are what the browser tests of the whole way and of tuning see (tests/app).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from make_figures import IMAGES, shrink


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "tests/app/test_walk.py",
                "tests/app/test_tune.py",
            ],
            cwd=Path(__file__).parents[1],
            env={**os.environ, "PROMERGE_PICTURES": folder},
        )
        for source in sorted(Path(folder).glob("*.png")):
            shutil.copyfile(source, IMAGES / source.name)
            shrink(IMAGES / source.name, 1000)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
