"""What a test needs beyond the package's own requirements."""

from __future__ import annotations

import importlib
import os
from types import ModuleType

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
        reason = f"{module} cannot be imported ({error}): {how}"
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(reason)
        pytest.skip(reason, allow_module_level=True)
