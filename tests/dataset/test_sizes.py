"""One rule for what an image's size is: masks, metadata, exports and imports agree on it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, features
from pycocotools import mask as coco_mask

import promerge_fo.dataset as pfo
from promerge_fo import ProMergeConfig
from promerge_fo.images import load_image, read_header

FORMATS = {
    "jpg": {"quality": 95},
    "mpo": {"format": "MPO", "quality": 95},
    "png": {},
    "webp": {"quality": 95},
    "tif": {},
    "gif": {},
}
if features.check("avif"):
    FORMATS["avif"] = {"quality": 90}


def disc(size, rng):
    """(height, width, 3) uint8: a bright ellipse on noise, off its centre."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    row, column = size[0] * rng.uniform(0.4, 0.6), size[1] * rng.uniform(0.3, 0.5)
    inside = ((rows - row) / size[0]) ** 2 + ((columns - column) / size[1]) ** 2 < 0.05
    picture = rng.integers(0, 60, (*size, 3), dtype=np.uint8)
    picture[inside] += np.array([180, 120, 20], np.uint8)
    return picture


@pytest.fixture(scope="module")
def turned(fo, tmp_path_factory):
    """A dataset of 28 images of random sizes, formats and orientations, segmented."""
    rng = np.random.default_rng(18)
    folder = tmp_path_factory.mktemp("turned")
    dataset = fo.Dataset()
    names = list(FORMATS)
    for number in range(28):
        name = names[number % len(names)]
        size = rng.integers(40, 160, 2)
        exif = Image.Exif()
        exif[0x0112] = int(rng.integers(5 if number % 3 else 1, 9))
        path = folder / f"{number:02}.{'jpg' if name == 'mpo' else name}"
        Image.fromarray(disc(size, rng)).save(path, exif=exif, **FORMATS[name])
        dataset.add_sample(fo.Sample(filepath=str(path)))
    dataset.compute_metadata()  # by FiftyOne's rule
    model = pfo.load_model(
        encoder="texture", config=ProMergeConfig(image_size=96, min_refined_iou=0)
    )
    pfo.segment_dataset(dataset, model)
    yield dataset
    dataset.delete()


def sizes_of(dataset):
    """{path: (height, width)} in the metadata."""
    paths, heights, widths = dataset.values(["filepath", "metadata.height", "metadata.width"])
    return {path: (h, w) for path, h, w in zip(paths, heights, widths, strict=True)}


def misled(dataset):
    """Have FiftyOne compute the metadata by its own rule; returns how many sizes it gets wrong."""
    dataset.compute_metadata(overwrite=True)
    return sum(read_header(path).size != size for path, size in sizes_of(dataset).items())


def test_a_run_writes_the_sizes_that_are_shown(turned):
    for path, size in sizes_of(turned).items():
        assert size == read_header(path).size == load_image(path).shape[:2]
    first = turned.first().metadata
    assert first.size_bytes and first.num_channels == 3 and first.mime_type == "image/jpeg"
    assert turned.count("promerge.detections") > 28


def test_masks_metadata_and_export_agree_whatever_fiftyone_computes(turned, tmp_path):
    assert misled(turned) >= 5  # else this test shows nothing
    summary = pfo.export_pseudo_labels(turned, "promerge", tmp_path / "a.json", min_area=0)
    assert summary["images"] == 28 and summary["annotations"] == turned.count("promerge.detections")
    written = json.loads((tmp_path / "a.json").read_text())
    paths = turned.values("filepath")
    shown = {number: read_header(path).size for number, path in enumerate(paths, start=1)}
    assert {i["id"]: (i["height"], i["width"]) for i in written["images"]} == shown
    by_number = dict(enumerate(turned, start=1))
    seen = dict.fromkeys(shown, 0)
    for entry in written["annotations"]:
        number = entry["image_id"]
        detection = by_number[number].promerge.detections[seen[number]]
        seen[number] += 1
        x, y, width, height = (round(v) for v in entry["bbox"])
        mask = coco_mask.decode(entry["segmentation"])
        assert mask.shape == shown[number]
        assert detection.mask.shape == (height, width)  # the mask as it was stored, not squashed
        assert np.array_equal(mask[y : y + height, x : x + width], detection.mask)


def test_what_is_shown_is_imported_evaluated_and_compared(turned, tmp_path):
    assert misled(turned) >= 5
    pfo.export_pseudo_labels(turned, "promerge", tmp_path / "a.json", min_area=0)
    report = pfo.import_predictions(turned, tmp_path / "a.json", "again")
    assert report.labels == turned.count("promerge.detections") and not report.skipped
    for sample in turned:
        masks = [d.mask for d in sample.promerge.detections]
        again = [d.mask for d in sample.again.detections]
        assert len(masks) == len(again)
        assert all(np.array_equal(a, b) for a, b in zip(masks, again, strict=True))
    results = pfo.evaluate_instances(turned, "again", gt_field="promerge")
    assert results.coco_metrics["segm"]["AP"] == 100
    compared = pfo.compare_fields(turned, ["again", "promerge"], "promerge", resamples=10)
    assert compared.scores["again"].metrics["AP"] == 100


def test_tuning_takes_turned_images(turned, tmp_path):
    """Each of them is measured at the size at which it is shown."""
    from promerge_fo import load_encoder

    assert misled(turned) >= 5
    done = pfo.ablate(
        turned,
        {"same": ProMergeConfig(image_size=96, min_refined_iou=0)},
        "promerge",
        encoder=load_encoder("texture", image_size=96),
        folder=tmp_path,
        resamples=10,
        progress=False,
    )
    assert done.outcomes["same"].scores["segm"].metrics["AP"] > 99


def test_sizes_are_corrected_on_demand(turned):
    wrong = misled(turned)
    assert pfo.correct_sizes(turned, progress=False) == wrong
    assert all(size == read_header(path).size for path, size in sizes_of(turned).items())
    assert pfo.correct_sizes(turned, progress=False) == 0


def test_swapped_and_missing_metadata(tmp_path):
    """The file says how large an image is; the metadata only where there is no file."""
    from promerge_fo.dataset.sizes import image_size
    from promerge_fo.images import ImageError, TooLargeError

    path = str(tmp_path / "a.jpg")
    Image.new("RGB", (30, 20)).save(path)
    swapped = {"width": 20, "height": 30}
    assert image_size({"filepath": path, "metadata": swapped}) == (20, 30)
    assert image_size({"filepath": path}) == (20, 30)
    gone = str(tmp_path / "gone.jpg")
    assert image_size({"filepath": gone, "metadata": swapped}) == (30, 20)
    with pytest.raises(ImageError, match="gone.jpg does not exist; check the path"):
        image_size({"filepath": gone, "metadata": {"width": 20}})
    with pytest.MonkeyPatch.context() as patch, pytest.raises(TooLargeError, match="at most 500"):
        patch.setenv("PROMERGE_MAX_PIXELS", "500")
        image_size({"filepath": path, "metadata": swapped})


def test_what_comes_from_a_cluster_has_the_workers_sizes(fo, dataset):
    """The files need not be seen by the machine that merges."""
    from concurrent.futures import ThreadPoolExecutor

    from promerge_fo.dataset.labels import declare_field
    from promerge_fo.dataset.runs.merge import merge_rows

    dataset.add_samples([fo.Sample(filepath=f"/{name}.png") for name in "abc"])
    first = dataset.first()
    first.metadata = fo.ImageMetadata(width=7, height=5, size_bytes=99)
    first.save()
    declare_field(dataset, "promerge")
    row = {"status": "ok", "error": None, "scores": [], "counts": []}
    rows = [
        {**row, "filepath": "/a.png", "height": 7, "width": 5},
        {**row, "filepath": "/b.png", "height": 3, "width": 4},
        {**row, "filepath": "/c.png", "height": 0, "width": 0, "status": "failed", "error": "-"},
    ]
    with ThreadPoolExecutor(1) as pool:
        merge_rows(dataset, "promerge", "0" * 16, rows, pool)
    dataset.reload()
    assert sizes_of(dataset) == {"/a.png": (7, 5), "/b.png": (3, 4), "/c.png": (None, None)}
    assert dataset.values("metadata.size_bytes") == [99, None, None]
