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

    The operator ``show_run`` is the class ``ShowRun`` in ``show_run.py``, in ``operators/`` or a
    folder of it, and the panel ``promerge_review`` the class ``ReviewPanel`` in
    ``plugin/review_panel.py``.
    """
    files = {path.stem: path for path in Path(ROOT, "operators").rglob("*.py")}
    for name in plugin.plugin_definition.operators:
        own = name.removeprefix("promerge_")
        if own == name:
            file = ".".join(files[name].relative_to(ROOT).with_suffix("").parts)
        else:
            file = f"{own}_panel"
        module = importlib.import_module(f".{file}", __name__)
        plugin.register(getattr(module, file.rpartition(".")[2].title().replace("_", "")))
