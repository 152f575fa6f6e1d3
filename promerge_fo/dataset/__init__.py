"""The FiftyOne side: masks into datasets, and out of them again.

``__init__.pyi`` lists the public names, each with the file that defines it; a name is loaded when
it is first used. Importing this package imports neither FiftyOne nor torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
