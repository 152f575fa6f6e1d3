"""detectron2's checkpointer, which reads no pickles, and whose files are whole.

Importing this module imports detectron2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from promerge_fo.detector.weights import refuse_pickle
from promerge_fo.encoder.weights import read_checkpoint

__all__ = ["SafeCheckpointer"]


class SafeCheckpointer(DetectionCheckpointer):  # type: ignore[misc]
    """Loads tensors, numbers and text alone, never code; a file is there when it is whole.

    detectron2's own executes what pickles say (``.pkl``), and a kill while it saves leaves half a
    file under the checkpoint's name.
    """

    def save(self, name: str, **kwargs: Any) -> None:
        """Write the model and what belongs to it as ``name.pth``."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: value.state_dict() for key, value in self.checkpointables.items()}
        target = Path(self.save_dir, f"{name}.pth")
        partial = target.with_suffix(".partial")
        torch.save({"model": self.model.state_dict(), **states, **kwargs}, partial)
        partial.replace(target)
        self.tag_last_checkpoint(target.name)

    def _load_file(self, filename: str) -> Any:
        """What a checkpoint holds.

        Raises:
            WeightsError: it is a pickle, or holds more than weights.
        """
        path = Path(filename)
        refuse_pickle(path)
        content = read_checkpoint(path)
        return content if "model" in content else {"model": content}
