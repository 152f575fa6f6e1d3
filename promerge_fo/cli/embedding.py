"""``promerge embed``: vectors of masks that are there already, and the map of them."""

from __future__ import annotations

import shlex
import sys
from typing import Any

from promerge_fo.cli.arguments import FACETS, Commands, add, add_command, positive
from promerge_fo.cli.progress import TerminalBar

_MAPS = ("pca", "tsne", "umap")
_SHOWN = 20  # failures that are listed


def add_commands(commands: Commands) -> None:
    """Declare the commands."""
    made = add_command(commands, embed, "DATASET|DIR [options]")
    add(made, "dataset")
    add(made, "--view")
    add(made, "--label-field", default="promerge")
    text = "also make the Embeddings panel's map, and the index that sorts by similarity"
    add(made, "--map", _MAPS, text)
    add(made, "--overwrite", bool, "make all embeddings anew, also another encoder's")
    add(made, "--batch-size", positive, "images that a GPU encodes together", default=8)
    text = "an encoder's name (that of the embeddings that are there, else of the masks' run)"
    add(made, "--encoder", "NAME", text)
    add(made, "--checkpoint")
    add(made, "--facet", FACETS, "features to take (the run's, or key)")
    add(made, "--block", positive, "block whose features are taken, from 1 (the run's, or last)")
    add(made, "--device")


def embed(dataset: str, view: str | None, label_field: str, map: str | None, **options: Any) -> int:
    """Give masks embeddings: one vector each, of what the encoder saw inside.

    Any masks will do: of a run, imported, painted, ground truth; a label without a mask is taken by
    its box. Masks that have an embedding keep it, so a call that was stopped goes on where it was,
    and masks that were painted since get new ones. "promerge segment --embed" makes them in the
    same pass as the masks. Where images failed, the exit status is 1.

      promerge embed my-dataset
      promerge embed photos/ --label-field ground_truth --encoder vit_small_patch14_dinov2.lvd142m
      promerge embed my-dataset --map pca
    """
    from promerge_fo.dataset.classes.embeddings import embed_instances
    from promerge_fo.dataset.classes.maps import map_instances
    from promerge_fo.dataset.database import root_dataset
    from promerge_fo.dataset.samples import find_dataset

    samples = find_dataset(dataset, view)
    report = embed_instances(samples, label_field, progress=TerminalBar, **options)
    print(report)
    for path, reason in list(report.failed.items())[:_SHOWN]:
        print(f"failed: {path}: {reason}", file=sys.stderr)
    name = shlex.quote(root_dataset(samples).name)
    if map is not None:
        results = map_instances(samples, label_field, method=map)
        print(
            f"the map {results.key!r} has {len(results.points)} masks: fiftyone app launch {name}"
        )
    return 1 if report.failed else 0
