"""What a test needs beyond the package's own requirements."""

from __future__ import annotations

import importlib
import os
import shutil
from types import ModuleType
from typing import NoReturn

import pytest


def need(module: str, how: str) -> ModuleType:
    """Import an optional module; where it is missing, skip the test, or fail it where CI=true.

    Args:
        module: the name to import.
        how: how to get it, for the message.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing(f"{module} cannot be imported ({error}): {how}")


def need_command(command: str, how: str) -> str:
    """The path of a program; where it is missing, skip the test, or fail it where CI=true."""
    path = shutil.which(command)
    if path is None:
        missing(f"there is no {command}: {how}")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the test for a reason, or fail it where CI=true."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason, allow_module_level=True)
