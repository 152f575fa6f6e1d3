"""What pyproject.toml cannot say: a wheel carries the App's plugin, from beside the package."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PARTS = ("fiftyone.yml", "requirements.txt", "plugin", "operators", "skills")


class WithPlugin(build_py):
    """Puts the plugin into promerge_fo/install/app, where ``promerge plugin install`` looks."""

    def run(self) -> None:
        """Build the library, and copy the plugin into it."""
        super().run()
        if self.editable_mode:
            return  # the checkout is at hand
        target = Path(self.build_lib) / "promerge_fo" / "install" / "app"
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for part in map(Path, PARTS):
            if part.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(part, target / part, ignore=ignored)
            else:
                shutil.copy(part, target / part)


setup(cmdclass={"build_py": WithPlugin})
