"""Embeddings of masks: what they are, where they lie, and what becomes of them."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from promerge_fo.dataset.classes.embeddings import embed_instances, read_embeddings
from promerge_fo.dataset.database import companion
from promerge_fo.encoder import load_encoder
from promerge_fo.instances import Crop, mean_features

FIELD = "promerge"


@pytest.fixture(scope="session")
def encoder():
    return load_encoder("texture", image_size=96)


@pytest.fixture
def embedded(scenes, encoder):
    """Nine images with masks and their embeddings."""
    embed_instances(scenes, FIELD, encoder=encoder)
    return scenes


def by_label(samples):
    found = read_embeddings(samples, FIELD)
    return dict(zip(found.label_ids.tolist(), found.vectors, strict=True))


def shares(mask, grid):
    """(h, w): the pixels of a mask in each patch, by counting parts of pixels that fit in both."""
    (height, width), (h, w) = mask.shape, grid
    fine = np.kron(mask, np.ones(grid))
    return fine.reshape(h, height, w, width).sum(axis=(1, 3)) / (h * w)


def expected_means(encoder, sample):
    """(n, C): by the definition, one mask after the other."""
    from PIL import Image

    pixels = np.asarray(Image.open(sample.filepath))
    _, _, described = encoder.encode_for_both([encoder.transform(pixels)])
    features = described[0].numpy().astype(np.float64)
    means = []
    for label in sample[FIELD].detections:
        mask = np.zeros(pixels.shape[:2])
        x, y, _, _ = label.bounding_box
        top, left = round(y * len(mask)), round(x * mask.shape[1])
        mask[top : top + len(label.mask), left : left + label.mask.shape[1]] = label.mask
        weights = shares(mask, features.shape[1:])
        means.append((features * weights).sum(axis=(1, 2)) / weights.sum())
    return means


def test_where_all_masks_have_theirs_the_encoder_s_weights_are_not_needed(
    embedded, encoder, monkeypatch
):
    def load_encoder(**settings):
        raise OSError("the weights could not be had")

    monkeypatch.setattr("promerge_fo.dataset.classes.embeddings.load_encoder", load_encoder)
    report = embed_instances(embedded, FIELD)
    assert (report.masks, report.skipped) == (0, 9)
    assert report.source == encoder.embedding_identity()
    with pytest.raises(OSError, match="could not be had"):
        embed_instances(embedded, FIELD, overwrite=True)
    embedded.set_values(f"{FIELD}.detections.bounding_box", [[[0, 0, 0.5, 0.5]]] * 9)
    with pytest.raises(OSError, match="could not be had"):
        embed_instances(embedded, FIELD)


def test_a_mean_weighs_each_patch_by_the_pixels_that_the_mask_has_of_it():
    import torch

    rng = np.random.default_rng(0)
    features = rng.standard_normal((5, 7, 4)).astype(np.float32)
    mask = rng.random((23, 31)) < 0.4
    crop = mask[2:20, 5:30]
    mask[:2] = mask[20:] = False
    mask[:, :5] = mask[:, 30:] = False
    found = mean_features(torch.from_numpy(features), [Crop(crop, 2, 5)], mask.shape)
    weights = shares(mask, (7, 4))
    np.testing.assert_allclose(
        found[0], (features * weights).sum(axis=(1, 2)) / weights.sum(), rtol=1e-5
    )


def test_a_mask_without_a_pixel_and_one_of_nan_features_have_no_mean():
    import torch

    features = torch.ones((2, 2, 2))
    crops = [Crop(np.ones((2, 2), bool), 0, 0), Crop(np.zeros((2, 2), bool), 0, 0)]
    found = mean_features(features, [*crops, Crop(np.zeros((0, 3), bool), 4, 0)], (4, 4))
    assert np.isfinite(found).all(axis=1).tolist() == [True, False, False]
    assert mean_features(features, [], (4, 4)).shape == (0, 2)
    features[1, 0, 0] = float("nan")
    assert np.isnan(mean_features(features, crops[:1], (4, 4))).all()


def test_vectors_are_means_centred_over_the_masks_and_of_unit_length(embedded, encoder):
    means = np.array([m for sample in embedded for m in expected_means(encoder, sample)])
    centred = means - means.mean(axis=0)
    found = read_embeddings(embedded, FIELD)
    assert found.vectors.dtype == np.float32
    np.testing.assert_allclose(
        found.vectors, centred / np.linalg.norm(centred, axis=1, keepdims=True), atol=2e-5
    )
    labels = [(s.id, d.id) for s in embedded for d in s[FIELD].detections]
    assert list(zip(found.sample_ids, found.label_ids, strict=True)) == labels
    assert found.source == encoder.embedding_identity()


def test_a_view_has_the_vectors_that_the_dataset_has(embedded):
    whole = by_label(embedded)
    few = embedded.select_labels(ids=list(whole)[3:8], fields=FIELD)
    part = by_label(few)
    assert list(part) == list(whole)[3:8]
    for label, vector in part.items():
        np.testing.assert_array_equal(vector, whole[label])


def test_labels_and_samples_are_left_as_they_were(scenes, encoder):
    before = scenes.to_dict()
    embed_instances(scenes, FIELD, encoder=encoder)
    scenes.reload()
    assert scenes.to_dict() == before


def test_a_painted_mask_gets_a_new_embedding_and_a_deleted_label_has_none(
    embedded, encoder, caplog
):
    whole = by_label(embedded)
    sample = embedded.skip(1).first()
    painted, deleted, *_ = sample[FIELD].detections
    mask = painted.mask.copy()
    mask[: len(mask) // 2] = True
    painted.mask = mask
    sample[FIELD].detections.remove(deleted)
    sample.save()
    with caplog.at_level(logging.WARNING, "fiftyone.promerge"):
        assert by_label(embedded).keys() == whole.keys() - {painted.id, deleted.id}
    assert "1 of" in caplog.text and f"promerge embed {embedded.name}" in caplog.text
    report = embed_instances(embedded, FIELD, encoder=encoder)
    assert (report.images, report.skipped) == (1, 8)
    assert by_label(embedded).keys() == whole.keys() - {deleted.id}
    means = np.array([m for each in embedded for m in expected_means(encoder, each)])
    centred = means - means.mean(axis=0)
    place = list(by_label(embedded)).index(painted.id)
    np.testing.assert_allclose(
        by_label(embedded)[painted.id], centred[place] / np.linalg.norm(centred[place]), atol=2e-5
    )


def test_what_is_done_when_a_call_is_stopped_is_not_done_again(scenes, encoder, monkeypatch):
    from promerge_fo.dataset.classes import embeddings

    monkeypatch.setattr(embeddings, "_TOGETHER", 2)

    class Bar:
        shown = 0

        def update(self, n):
            self.shown += n
            if self.shown > 5:
                raise KeyboardInterrupt

        def close(self):
            pass

    with pytest.raises(KeyboardInterrupt):
        embed_instances(scenes, FIELD, encoder=encoder, progress=lambda total: Bar())
    report = embed_instances(scenes, FIELD, encoder=encoder)
    assert (report.skipped, report.images) == (4, 5)
    assert embed_instances(scenes, FIELD, encoder=encoder).skipped == 9
    again = embed_instances(scenes, FIELD, encoder=encoder, overwrite=True)
    assert (again.skipped, again.images) == (0, 9)


def test_embeddings_of_another_encoder_are_refused_by_name_or_replaced(embedded, encoder):
    other = load_encoder("texture", image_size=64)
    with pytest.raises(ValueError, match="image_size: 96 and 64") as told:
        embed_instances(embedded, FIELD, encoder=other)
    assert "--overwrite" in str(told.value)
    assert read_embeddings(embedded, FIELD).source == encoder.embedding_identity()
    embed_instances(embedded, FIELD, encoder=other, overwrite=True)
    assert read_embeddings(embedded, FIELD).source == other.embedding_identity()
    assert embed_instances(embedded, FIELD, encoder=other).skipped == 9


def test_embeddings_of_two_encoders_in_one_field_are_not_read(embedded):
    other = load_encoder("texture", image_size=64)
    embed_instances(embedded.limit(2), FIELD, encoder=other, overwrite=True)
    with pytest.raises(ValueError, match="do not compare; they differ in image_size: 64 and 96"):
        read_embeddings(embedded, FIELD)


def test_the_encoder_is_that_of_the_embeddings_or_else_of_the_run(filled, model):
    report = embed_instances(filled, FIELD)
    assert report.source == model.pipeline.encoder.embedding_identity()
    embed_instances(filled, FIELD, encoder=load_encoder("texture", image_size=64), overwrite=True)
    assert embed_instances(filled, FIELD).source["image_size"] == 64


def test_the_vectors_of_deleted_samples_are_forgotten(embedded, encoder):
    kept = companion(embedded, FIELD)
    assert kept.count_documents({"vectors": {"$exists": True}}) == 9
    embedded.delete_samples(embedded.limit(4).values("id"))
    assert len(read_embeddings(embedded, FIELD)) == embedded.count(f"{FIELD}.detections")
    assert embed_instances(embedded, FIELD).skipped == 5
    assert kept.count_documents({"vectors": {"$exists": True}}) == 5


def test_an_encoder_that_made_none_of_the_embeddings_is_forgotten(embedded, encoder):
    other = load_encoder("texture", image_size=64)
    embed_instances(embedded, FIELD, encoder=other, overwrite=True)
    embed_instances(embedded, FIELD, encoder=encoder, overwrite=True)
    assert embed_instances(embedded, FIELD).source == encoder.embedding_identity()


def test_one_mask_keeps_its_direction_and_equal_masks_have_none(fo, scenes, encoder):
    first = scenes.first()
    scenes.delete_samples(scenes.skip(1).values("id"))
    first[FIELD].detections = first[FIELD].detections[:1]
    first.save()
    embed_instances(scenes, FIELD, encoder=encoder)
    (vector,) = read_embeddings(scenes, FIELD).vectors
    (mean,) = expected_means(encoder, first)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=2e-5)
    label = first[FIELD].detections[0].copy()
    first[FIELD].detections.append(label)
    first.save()
    embed_instances(scenes, FIELD, encoder=encoder)
    assert (read_embeddings(scenes, FIELD).vectors == 0).all()


def test_a_box_without_a_mask_is_embedded_as_a_whole(fo, scenes, encoder):
    sample = scenes.first()
    label = sample[FIELD].detections[0]
    height, width = label.mask.shape
    label.mask = np.ones((height, width), dtype=bool)
    box = fo.Detection(label="box", bounding_box=label.bounding_box)
    sample["boxes"] = fo.Detections(detections=[box])
    sample["both"] = fo.Detections(detections=[label.copy()])
    sample.save()
    found = []
    for field in ("boxes", "both"):
        embed_instances(scenes, field, encoder=encoder)
        found.append(read_embeddings(scenes, field).vectors)
    np.testing.assert_array_equal(*found)


class Broken:
    """An encoder's features, NaN in the images of one size."""

    def __init__(self, encoder):
        self.encoder, self.whole = encoder, encoder._encode_for_both

    def __call__(self, pixels, with_prompt_scores):
        features, scores, described = self.whole(pixels, with_prompt_scores)
        described[:, 0, 0, 0] = float("nan")
        return features, scores, described


def test_features_that_are_nan_give_no_embeddings_and_it_is_said(scenes):
    encoder = load_encoder("texture", image_size=96)
    encoder._encode_for_both = Broken(encoder)
    report = embed_instances(scenes, FIELD, encoder=encoder)
    count = scenes.count(f"{FIELD}.detections")
    assert report.masks + report.unusable == count
    assert report.unusable == count
    assert "NaN or infinity" in str(report)
    with pytest.raises(ValueError, match="of finite numbers.*overwrite"):
        read_embeddings(scenes, FIELD)


def test_images_and_masks_that_cannot_be_read_cost_no_others(scenes, encoder, tmp_path):
    whole = scenes.count(f"{FIELD}.detections")
    gone, holed = scenes.first(), scenes.last()
    lost = len(gone[FIELD].detections)
    gone.filepath = str(tmp_path / "gone.png")
    gone.save()
    holed[FIELD].detections[0].mask = None
    holed[FIELD].detections[0].mask_path = str(tmp_path / "gone-mask.png")
    holed.save()
    report = embed_instances(scenes, FIELD, encoder=encoder)
    assert report.masks == whole - lost - 1
    assert report.failed.keys() == {gone.filepath, holed.filepath}
    assert "gone-mask.png" in report.failed[holed.filepath]
    assert len(read_embeddings(scenes, FIELD)) == whole - lost - 1


def test_what_has_no_embeddings_is_told_what_to_do(fo, scenes, encoder, tmp_path):
    with pytest.raises(ValueError, match=f"promerge embed {scenes.name} --label-field promerge"):
        read_embeddings(scenes, FIELD)
    for function in (read_embeddings, embed_instances):
        with pytest.raises(ValueError, match="'nothing' does not exist"):
            function(scenes, "nothing")
        with pytest.raises(ValueError, match="patches of images"):
            function(scenes.to_patches(FIELD), FIELD)
    with pytest.raises(ValueError, match="loaded already"):
        embed_instances(scenes, FIELD, encoder=encoder, device="cpu")
    embed_instances(scenes, FIELD, encoder=encoder)
    scenes.set_values(f"{FIELD}.detections", [[]] * len(scenes))
    for function in (read_embeddings, embed_instances):
        with pytest.raises(ValueError, match="has no masks here"):
            function(scenes, FIELD)


def test_embeddings_go_with_their_dataset_or_field(fo, embedded, encoder):
    other = fo.Dataset()
    other.add_sample(embedded.first().copy())
    embed_instances(other, FIELD, encoder=encoder)
    kept, name = companion(other, FIELD), other.name
    assert kept.estimated_document_count() == 2, "one image, and what made it"
    fo.delete_dataset(name)
    embedded.clone_sample_field(FIELD, "copy")
    embed_instances(embedded, "copy", encoder=encoder)
    assert kept.estimated_document_count() == 0
    assert companion(embedded, FIELD).estimated_document_count() == 10
    embedded.delete_sample_field(FIELD)
    embed_instances(embedded, "copy", encoder=encoder)
    assert companion(embedded, FIELD).estimated_document_count() == 0
    assert len(read_embeddings(embedded, "copy")) == embedded.count("copy.detections")
