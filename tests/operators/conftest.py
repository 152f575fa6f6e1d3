"""The plugin as FiftyOne loads it: copied to where it looks for plugins."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def plugin(fo):
    """Installs the plugin and gives an operator of it by name."""
    import fiftyone.operators as foo

    from promerge_fo.dataset.plugin import install_plugin

    install_plugin()
    return lambda name: foo.get_operator(f"@promerge/promerge/{name}")
