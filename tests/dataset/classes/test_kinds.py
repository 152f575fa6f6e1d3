"""The way from images to classes, on scenes of four kinds of object."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from promerge_fo import dataset as pfo
from promerge_fo import load_encoder
from promerge_fo.instances import Instances
from tests.scenes import scenes_of_kinds

FIELD = "promerge"


@pytest.fixture
def scenes(fo, dataset, tmp_path):
    """Thirty scenes with their true masks as labels, and the kind of each label by its id."""
    made = {}

    def make(seed):
        for number, (image, masks, kinds) in enumerate(scenes_of_kinds(seed)):
            path = tmp_path / f"{seed}_{number}.png"
            Image.fromarray(image).save(path)
            instances = Instances(masks, np.ones(len(masks), np.float32))
            labels = pfo.to_detections(instances, run="0123456789abcdef")
            dataset.add_sample(fo.Sample(filepath=str(path), promerge=labels))
            made.update(zip((each.id for each in labels.detections), kinds.tolist(), strict=True))
        return dataset, made

    return make


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_kinds_are_grouped_named_and_spread(scenes, seed):
    dataset, kinds = scenes(seed)
    pfo.embed_instances(dataset, FIELD, encoder=load_encoder("texture", image_size=240))
    groups = pfo.group_instances(dataset, FIELD)
    assert 4 <= len(groups) <= 12
    group_of = dict(
        zip(
            dataset.values(f"{FIELD}.detections.id", unwind=True),
            dataset.values(f"{FIELD}.detections.group", unwind=True),
            strict=True,
        )
    )
    members = {each.name: Counter() for each in groups}
    for label_id, group in group_of.items():
        if group is not None:
            members[group][kinds[label_id]] += 1
    right = sum(counts.most_common(1)[0][1] for counts in members.values())
    assert right >= 0.9 * len(kinds)

    for group in groups:  # what somebody does who looks at the four typical masks alone
        (kind, _), *_ = Counter(kinds[i] for i in group.typical).most_common(1)
        pfo.name_instances(dataset, FIELD, f"kind {kind}", group.typical)
    while len(found := pfo.nearest_unnamed(dataset, FIELD, limit=50)):
        pfo.propagate_names(dataset, FIELD, found)
    dataset.reload()
    names = {label.id: label.label for s in dataset for label in s[FIELD].detections}
    correct = sum(name == f"kind {kinds[i]}" for i, name in names.items())
    assert correct >= 0.9 * len(kinds)
