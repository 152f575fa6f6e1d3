"""FiftyOne Brain's similarity of masks, over the embeddings that are stored beside their field.

Brain's own index would keep a copy of all vectors as text in its results. This one is the same
index, which reads them where they are: an index of a million masks takes no room, and knows the
masks as they are when it is loaded.
"""

from __future__ import annotations

from typing import Any

from promerge_fo.dataset.classes.embeddings import read_embeddings
from promerge_fo.dataset.database import similarity_backend

__all__ = ["InstanceSimilarity", "InstanceSimilarityConfig", "InstanceSimilarityIndex"]

_Config, _Similarity, _Index = similarity_backend()
_VECTORS = ("embeddings", "sample_ids", "label_ids")


class InstanceSimilarityConfig(_Config):  # type: ignore[misc, valid-type]
    """The configuration, which FiftyOne stores and finds the other classes by."""


class InstanceSimilarity(_Similarity):  # type: ignore[misc, valid-type]
    """Makes the index."""

    def initialize(self, samples: Any, brain_key: str | None) -> InstanceSimilarityIndex:
        """The index of the masks of the field ``config.patches_field``."""
        return InstanceSimilarityIndex(samples, self.config, brain_key, backend=self)


class InstanceSimilarityIndex(_Index):  # type: ignore[misc, valid-type]
    """The index.

    Raises:
        ValueError: as :func:`~promerge_fo.dataset.read_embeddings`.
    """

    def __init__(self, samples: Any, config: Any, brain_key: str | None, backend: Any = None):
        found = read_embeddings(samples, config.patches_field)
        super().__init__(
            samples,
            config,
            brain_key,
            embeddings=found.vectors,
            sample_ids=found.sample_ids,
            label_ids=found.label_ids,
            backend=backend,
        )

    def attributes(self) -> list[str]:
        """What FiftyOne stores of the index: nothing of what the collection of vectors has."""
        return [name for name in super().attributes() if name not in _VECTORS]

    @classmethod
    def _from_dict(
        cls, d: dict[str, Any], samples: Any, config: Any, brain_key: str
    ) -> InstanceSimilarityIndex:
        return cls(samples, config, brain_key)
