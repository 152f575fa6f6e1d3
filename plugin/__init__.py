"""Registration of the plugin's operators and panels.

FiftyOne executes this file whenever it reads its plugins, so nothing heavy is imported here. The
repository's root joins this module's own search path: ``.operators`` is then this plugin's folder
and no other's, whichever plugins are loaded beside it. An installed ``promerge_fo`` is used where
there is one, otherwise the one in the repository.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).resolve().parents[1])
__path__.append(ROOT)
if importlib.util.find_spec("promerge_fo") is None:
    sys.path.append(ROOT)


def register(plugin: Any) -> None:
    """Add the operators and panels that ``fiftyone.yml`` lists, in this order; FiftyOne calls it.

    The operator ``show_run`` is the class ``ShowRun`` in ``operators/show_run.py``, and the panel
    ``promerge_review`` the class ``ReviewPanel`` in ``plugin/review_panel.py``.
    """
    for name in plugin.plugin_definition.operators:
        own = name.removeprefix("promerge_")
        file = f"operators.{name}" if own == name else f"{own}_panel"
        module = importlib.import_module(f".{file}", __name__)
        plugin.register(getattr(module, file.rpartition(".")[2].title().replace("_", "")))
