"""Embeddings that are made in the pass that makes the masks."""

from __future__ import annotations

import numpy as np
import pytest

from promerge_fo import dataset as pfo
from promerge_fo.config import ProMergeConfig
from promerge_fo.dataset.classes import embeddings

FIELD = "promerge"


def model(embed=True, image_size=96, **changes):
    config = ProMergeConfig(image_size=image_size, min_refined_iou=0, **changes)
    return pfo.load_model(encoder="texture", config=config, embed=embed)


@pytest.fixture
def images(fo, dataset, photographs):
    dataset.add_samples([fo.Sample(filepath=path) for path in photographs])
    return dataset


@pytest.fixture
def no_second_pass(monkeypatch):
    """Whoever embeds masks after they were made fails."""

    def fail(*args):
        raise AssertionError("these masks were to be embedded in the first pass")

    return lambda: monkeypatch.setattr(embeddings, "embed_masks", fail)


def by_label(images):
    found = pfo.read_embeddings(images, FIELD)
    return dict(zip(found.label_ids.tolist(), found.vectors, strict=True))


def test_one_pass_gives_the_embeddings_that_two_passes_give(images, no_second_pass):
    plain, embedding = model(embed=False), model()
    assert embedding.hash == plain.hash
    pfo.segment_dataset(images, plain, "plain")
    report = pfo.embed_instances(images, "plain")
    no_second_pass()
    pfo.segment_dataset(images, embedding, FIELD)
    for sample in images:
        pairs = zip(sample[FIELD].detections, sample["plain"].detections, strict=True)
        assert all(np.array_equal(a.mask, b.mask) for a, b in pairs)
    once, twice = (pfo.read_embeddings(images, field) for field in (FIELD, "plain"))
    assert once.source == twice.source == report.source
    assert len(once) == report.masks == images.count(f"{FIELD}.detections") > 4
    np.testing.assert_allclose(once.vectors, twice.vectors, atol=1e-5)


def test_files_of_masks_have_embeddings_of_the_same_pass(images, no_second_pass, tmp_path):
    no_second_pass()
    pfo.segment_dataset(images, model(), FIELD, output_dir=str(tmp_path))
    assert len(pfo.read_embeddings(images, FIELD)) == images.count(f"{FIELD}.detections")


def test_a_run_that_goes_on_keeps_what_is_there_and_fills_what_is_missing(images):
    pfo.segment_dataset(images, model(embed=False), FIELD, limit=2)
    pfo.segment_dataset(images, model(), FIELD, limit=3)
    before = by_label(images.limit(3))
    assert len(before) == images.limit(3).count(f"{FIELD}.detections")
    report = pfo.segment_dataset(images, model(), FIELD)
    assert report.skipped == 3
    assert by_label(images).keys() >= before.keys()
    assert len(by_label(images)) == images.count(f"{FIELD}.detections")


def test_masks_that_keep_their_ids_keep_their_embeddings(images):
    pfo.segment_dataset(images, model(), FIELD)
    kept = images.first()[FIELD].detections[0].id
    pfo.accept(images, FIELD, [kept])
    before = by_label(images)
    pfo.segment_dataset(images, model(seed=1), FIELD)
    after = by_label(images)
    assert kept in after
    assert len(after) == len(before)
    assert len(before.keys() & after.keys()) == 1
    np.testing.assert_allclose(after[kept], before[kept], atol=1e-5)


def test_a_painted_mask_that_a_run_keeps_is_embedded_as_it_is(images):
    pfo.segment_dataset(images, model(), FIELD)
    pfo.enable_annotation(images, FIELD)
    sample = images.first()
    label = sample[FIELD].detections[0]
    painted = label.mask.astype(np.uint8)
    painted[:1] = 1
    label.mask = painted
    sample.save()
    pfo.segment_dataset(images, model(seed=1), FIELD)
    found = by_label(images)
    assert label.id in found
    pfo.embed_instances(images, FIELD, overwrite=True)
    np.testing.assert_allclose(by_label(images)[label.id], found[label.id], atol=1e-5)


def test_embeddings_that_do_not_compare_are_refused_before_anything_is_done(images):
    pfo.segment_dataset(images, model(), FIELD, limit=2)
    other = model(image_size=160)
    pfo.embed_instances(images.limit(2), FIELD, encoder=other.pipeline.encoder, overwrite=True)
    with pytest.raises(ValueError, match="image_size: 160 and 96"):
        pfo.segment_dataset(images, model(), FIELD)
    assert images.count(f"{FIELD}.detections") == images.limit(2).count(f"{FIELD}.detections")
    pfo.segment_dataset(images, other, FIELD)
    assert pfo.read_embeddings(images, FIELD).source["image_size"] == 160


def test_apply_model_embeds_too(images):
    images.apply_model(model(), label_field=FIELD, num_workers=0)
    assert len(pfo.read_embeddings(images, FIELD)) == images.count(f"{FIELD}.detections")


def test_facets_and_blocks_without_embeddings_are_refused():
    with pytest.raises(ValueError, match="give embed=True"):
        pfo.load_model(encoder="texture", embed_block=3)
