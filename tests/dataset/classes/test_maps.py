"""Embeddings in FiftyOne's own tools: the map, and sorting by similarity."""

from __future__ import annotations

import numpy as np
import pytest

from promerge_fo.dataset.classes.embeddings import embed_instances, read_embeddings
from promerge_fo.dataset.classes.maps import map_instances
from promerge_fo.encoder import load_encoder

FIELD = "promerge"


@pytest.fixture
def embedded(scenes):
    embed_instances(scenes, FIELD, encoder=load_encoder("texture", image_size=96))
    return scenes


def fresh(dataset):
    """The dataset as another process finds it, without what this one holds."""
    dataset.clear_cache()
    dataset.reload()
    return dataset


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_the_map_has_a_point_for_each_mask(embedded, method):
    map_instances(embedded, FIELD, method=method)
    assert set(embedded.list_brain_runs()) == {"promerge_map", "promerge_map_similarity"}
    results = fresh(embedded).load_brain_results("promerge_map")
    found = read_embeddings(embedded, FIELD)
    assert results.config.patches_field == FIELD
    assert results.label_ids.tolist() == found.label_ids.tolist()
    assert results.sample_ids.tolist() == found.sample_ids.tolist()
    assert np.isfinite(results.points).all()
    assert results.points.shape == (len(found), 2)
    if method == "pca":
        own = found.vectors - found.vectors.mean(axis=0)
        axes = np.linalg.svd(own, full_matrices=False)[2][:2]
        np.testing.assert_allclose(abs(results.points), abs(own @ axes.T), atol=1e-4)


def test_masks_are_sorted_by_how_much_they_are_like_one(embedded):
    map_instances(embedded, FIELD)
    found = read_embeddings(embedded, FIELD)
    patches = fresh(embedded).to_patches(FIELD)
    query = found.label_ids[4]
    ranked = patches.sort_by_similarity(str(query), brain_key="promerge_map_similarity")
    own = found.vectors - found.vectors.mean(axis=0)  # Brain centres them once more
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    alike = dict(zip(found.label_ids.tolist(), own @ own[4], strict=True))
    cosines = np.array([alike[label] for label in ranked.values("id")])
    assert len(cosines) == len(found)
    assert cosines[0] == pytest.approx(1)
    assert (np.diff(cosines) < 1e-6).all()


def test_the_index_knows_masks_that_were_deleted_or_painted(embedded):
    map_instances(embedded, FIELD)
    sample = embedded.first()
    gone = sample[FIELD].detections.pop(0).id
    sample.save()
    index = fresh(embedded).load_brain_results("promerge_map_similarity")
    assert gone not in index.label_ids.tolist()
    assert len(index.label_ids) == embedded.count(f"{FIELD}.detections")


def test_masks_without_an_embedding_are_left_out_of_the_map(embedded):
    sample = embedded.first()
    sample[FIELD].detections[1].mask = ~sample[FIELD].detections[1].mask
    sample.save()
    results = map_instances(embedded, FIELD)
    assert results.label_ids.tolist() == read_embeddings(embedded, FIELD).label_ids.tolist()
    assert sample[FIELD].detections[1].id not in results.label_ids.tolist()


def test_a_second_map_replaces_the_first_and_no_run_of_others(embedded):
    map_instances(embedded, FIELD)
    first = embedded.get_brain_info("promerge_map").timestamp
    map_instances(embedded.limit(5), FIELD)
    assert embedded.get_brain_info("promerge_map").timestamp > first
    count = embedded.limit(5).count(f"{FIELD}.detections")
    assert len(fresh(embedded).load_brain_results("promerge_map").label_ids) == count
    with pytest.raises(ValueError, match="another brain run 'promerge_map'"):
        embedded.clone_sample_field(FIELD, "other")
        embed_instances(embedded, "other", encoder=load_encoder("texture", image_size=96))
        map_instances(embedded, "other", brain_key="promerge_map")


def test_one_mask_makes_no_map(embedded):
    one = embedded.select_labels(ids=embedded.first()[FIELD].detections[0].id, fields=FIELD)
    with pytest.raises(ValueError, match="at least 2"):
        map_instances(one, FIELD)
    assert embedded.list_brain_runs() == []
