"""``python -m promerge_fo`` is the ``promerge`` command."""

import sys

from promerge_fo.cli import main

sys.exit(main())
