"""Instance masks for unlabelled images by ProMerge (Li and Shin, ECCV 2024), in FiftyOne.

``__init__.pyi`` lists the public names, each with the file that defines it; a name is loaded when
it is first used. Importing the package costs little and asks for neither FiftyOne nor a database.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
