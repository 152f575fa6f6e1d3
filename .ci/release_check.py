"""What `make release-check` does: builds sdist and wheel, and looks at them as a user meets them.

    python .ci/release_check.py --quick   build, contents, metadata (twine check), links: a minute
    python .ci/release_check.py           the same; then each is installed in an empty environment
                                          without extras, and runs `promerge demo`: 5 GB each, and
                                          minutes, less where pip has the packages in its cache

It asks the network for packages alone: of links to other places, the form is checked.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "docs/*.md")
_FENCE = re.compile(r"^( *)(```|~~~).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(
    r"\]\(\s*<?([^)\s>]+)>?[^)]*\)|(?:src|href)=\"([^\"]+)\"|^\[[^\]]+\]: *(\S+)", re.M
)


def pages(root: Path = ROOT) -> list[Path]:
    """The documentation's pages."""
    return [path for pattern in PAGES for path in sorted(root.glob(pattern))]


def links(text: str) -> Iterator[str]:
    """Where the links and pictures of a page in Markdown lead, except in code and comments."""
    for match in _LINK.finditer(_CODE.sub("", _COMMENT.sub("", _FENCE.sub("", text)))):
        yield next(target for target in match.groups() if target)


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", _FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    repeated = {f"{name}-{k}" for name, most in found.items() for k in range(1, most + 1)}
    return found.keys() | repeated


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """What is wrong with the links of a page, one line each."""
    text = page.read_text(encoding="utf-8")
    wrong = []
    for link in links(text):
        where = f"{page.relative_to(root)}: {link}"
        parts = urlsplit(link)
        if parts.scheme:
            if parts.scheme not in ("https", "mailto"):
                wrong.append(f"{where} is neither https nor mailto")
            elif parts.scheme == "https" and "." not in (parts.hostname or ""):
                wrong.append(f"{where} has no host")
            continue
        target = page if not parts.path else page.parent / unquote(parts.path)
        if not target.resolve().is_relative_to(root.resolve()) or not target.exists():
            wrong.append(f"{where} is not there")
        elif parts.fragment and parts.fragment not in anchors(target.read_text(encoding="utf-8")):
            wrong.append(f"{where}: no heading has this anchor")
    return wrong


PLUGIN = ("fiftyone.yml", "requirements.txt", "plugin", "operators", "skills")


def wanted_in_package(root: Path = ROOT) -> set[str]:
    """The files of the library that Git knows."""
    return _known(root, "promerge_fo")


def wanted_in_plugin(root: Path = ROOT) -> set[str]:
    """The files of the App's plugin that Git knows; wheels have them in promerge_fo/install/app."""
    return _known(root, *PLUGIN)


def _known(root: Path, *parts: str) -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", *parts], cwd=root, capture_output=True, text=True, check=True
    )
    return set(listed.stdout.split())


def wrong_contents(names: set[str], wanted: set[str], also: set[str], only: bool) -> list[str]:
    """What is missing in an archive, and what should not be in it.

    Args:
        names: of the archive's files.
        wanted: the library's files.
        also: what must be there besides.
        only: whether there may be nothing else but metadata.
    """
    missing = [f"{name} is missing" for name in sorted((wanted | also) - names)]
    extra = {name for name in names if "__pycache__" in name or name.endswith((".pyc", ".nbi"))}
    if only:
        extra |= {n for n in names - wanted if not re.match(r"promerge_fo-[^/]+\.dist-info/", n)}
    return missing + [f"{name} does not belong there" for name in sorted(extra)]


def names_in(archive: Path) -> set[str]:
    """The files of a wheel, or of an sdist without its first folder."""
    if archive.suffix == ".whl":
        return set(zipfile.ZipFile(archive).namelist())
    with tarfile.open(archive) as packed:
        return {m.name.partition("/")[2] for m in packed.getmembers() if m.isfile()}


def _run(*command: object, **options: object) -> None:
    print("$", *command, flush=True)
    subprocess.run([str(part) for part in command], check=True, **options)  # type: ignore[call-overload]


def _python(folder: Path) -> Path:
    """A new environment's Python."""
    _run(sys.executable, "-m", "venv", folder)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def build(place: Path) -> list[Path]:
    """An sdist, and a wheel that is built from it, whose metadata are in order."""
    source = place / "source"  # a copy: the tree may be installed in the meantime
    no_source = shutil.ignore_patterns(".*venv*", ".git", "build", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, source, ignore=no_source)
    python = _python(place / "tools")
    _run(python, "-m", "pip", "install", "--quiet", "build", "twine")
    _run(python, "-m", "build", "--outdir", place / "dist", source)
    made = sorted((place / "dist").iterdir())
    _run(python, "-m", "twine", "check", "--strict", *made)
    return made


def install_and_run(archive: Path, place: Path) -> None:
    """Install an archive without extras in an empty environment, and run the demo."""
    folder = place / archive.suffix.strip(".")
    python = _python(folder / "environment")
    _run(python, "-m", "pip", "install", "--quiet", archive)
    own = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("FIFTYONE_", "PYTHONPATH"))},
        "FIFTYONE_DATABASE_DIR": str(folder / "database"),
        "FIFTYONE_DEFAULT_DATASET_DIR": str(folder / "datasets"),
        "FIFTYONE_PLUGINS_DIR": str(folder / "plugins"),
    }
    promerge = [python, "-m", "promerge_fo"]
    _run(*promerge, "doctor", "--install-mongod", cwd=folder, env=own)
    _run(*promerge, "plugin", "install", cwd=folder, env=own)
    _run(*promerge, "demo", cwd=folder, env=own)
    if not list(folder.rglob("promerge-demo.png")):
        sys.exit(f"promerge demo of {archive.name} made no picture")
    if not (folder / "plugins" / "@promerge" / "promerge" / "fiftyone.yml").is_file():
        sys.exit(f"{archive.name} installed no plugin")
    shutil.rmtree(folder)


def main() -> int:
    """Run all checks; 1 where one fails."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="install nothing")
    quick = parser.parse_args().quick
    wrong = [line for page in pages() for line in broken_links(page)]
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        sdist, wheel = sorted(build(place), key=lambda path: path.suffix == ".whl")
        wanted = wanted_in_package()
        plugin = wanted_in_plugin()
        source = plugin | {"README.md", "LICENSE", "pyproject.toml", "setup.py", "PKG-INFO"}
        wrong += [
            f"{sdist.name}: {w}" for w in wrong_contents(names_in(sdist), wanted, source, False)
        ]
        wanted |= {f"promerge_fo/install/app/{name}" for name in plugin}
        wrong += [
            f"{wheel.name}: {w}" for w in wrong_contents(names_in(wheel), wanted, set(), True)
        ]
        print("\n".join(wrong) or "links and contents are in order", flush=True)
        if wrong:
            return 1
        for archive in () if quick else (sdist, wheel):
            install_and_run(archive, place)
            print(f"{archive.name} installs and runs", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
