"""detectron2's checkpointer, made to read no pickles and to leave no half-written files.

Importing this module imports detectron2.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from promerge_fo.detector.annotations import CLASS_AGNOSTIC
from promerge_fo.detector.weights import refuse_pickle
from promerge_fo.encoder.weights import read_checkpoint
from promerge_fo.files import whole_file

__all__ = ["SafeCheckpointer"]


class SafeCheckpointer(DetectionCheckpointer):  # type: ignore[misc]
    """Loads tensors, numbers and text only, never code; a checkpoint appears once it is whole.

    detectron2's own executes what pickles say (``.pkl``), and where it is killed while it saves,
    half a file is left under the checkpoint's name.

    Attributes:
        categories: the names of the model's classes by category id, which are saved with it.
    """

    categories: Mapping[int, str] = CLASS_AGNOSTIC

    def save(self, name: str, **kwargs: Any) -> None:
        """Write the model and what belongs to it as ``name.pth``."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        with whole_file(Path(self.save_dir, f"{name}.pth")) as file:
            named = {"model": self.model.state_dict(), "categories": dict(self.categories)}
            torch.save({**named, **states, **kwargs}, file)
        self.tag_last_checkpoint(f"{name}.pth")

    def _load_file(self, filename: str) -> Any:
        """What a checkpoint holds.

        Raises:
            WeightsError: it is a pickle, or holds more than weights.
        """
        path = Path(filename)
        refuse_pickle(path)
        content = read_checkpoint(path)
        return content if "model" in content else {"model": content}
