"""The way from images to classes, on scenes of four kinds of object."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from promerge_fo import dataset as pfo
from promerge_fo import load_encoder
from promerge_fo.config import ProMergeConfig
from promerge_fo.instances import Instances
from tests.scenes import kind_of, scenes_of_kinds

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


def test_images_become_an_export_with_categories(fo, dataset, tmp_path):
    truth = {}
    for number, (image, masks, kinds) in enumerate(scenes_of_kinds(21)):
        path = tmp_path / f"{number}.png"
        Image.fromarray(image).save(path)
        dataset.add_sample(fo.Sample(filepath=str(path)))
        truth[path.name] = (masks, kinds)

    def seen(label, sample):
        """What somebody sees in a mask."""
        mask = label.to_segmentation(frame_size=(240, 240)).mask > 0
        return f"kind {kind_of(mask, *truth[sample.filename])}"

    config = ProMergeConfig(image_size=240)
    model = pfo.load_model(encoder="texture", config=config, embed=True)
    pfo.segment_dataset(dataset, model, FIELD)
    for group in pfo.group_instances(dataset, FIELD):
        view = pfo.view_group(dataset, FIELD, group.name, limit=4)
        looks = [seen(patch[FIELD], dataset[patch.sample_id]) for patch in view]
        (name, _), *_ = Counter(looks).most_common(1)
        pfo.name_groups(dataset, FIELD, name, [group.name])
    pfo.export_pseudo_labels(dataset, FIELD, tmp_path / "all.json", classes="labels", min_area=0)
    exported = json.loads((tmp_path / "all.json").read_text())
    files = {each["id"]: each["file_name"].rpartition("/")[2] for each in exported["images"]}
    names = {each["id"]: each["name"] for each in exported["categories"]}
    assert sorted(names.values()) == [f"kind {kind}" for kind in range(4)]
    right = 0
    for each in exported["annotations"]:
        mask = coco_mask.decode(each["segmentation"]) > 0
        kind = kind_of(mask, *truth[files[each["image_id"]]])
        right += names[each["category_id"]] == f"kind {kind}"
    assert right >= 0.95 * dataset.count(f"{FIELD}.detections") > 35
