"""No image, however bad, costs another one its masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from promerge_fo import dataset as pfo


def coffee() -> Image.Image:
    return Image.fromarray(data.coffee()).resize((180, 120))


def corrupt(path: Path) -> None:
    path.write_bytes(b"this is no image")


def truncated(path: Path) -> None:
    coffee().save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])


def missing(path: Path) -> None:
    pass


def empty(path: Path) -> None:
    path.touch()


def huge(path: Path) -> None:
    Image.new("1", (10_000, 10_000)).save(path, "PNG")


def one_pixel(path: Path) -> None:
    Image.new("RGB", (1, 1), "red").save(path, "PNG")


def sixteen_bit(path: Path) -> None:
    Image.fromarray(np.asarray(coffee().convert("L")).astype(np.uint16) * 257).save(path, "PNG")


def grayscale(path: Path) -> None:
    coffee().convert("L").save(path, "PNG")


def rgba(path: Path) -> None:
    coffee().convert("RGBA").save(path, "PNG")


def palette(path: Path) -> None:
    coffee().convert("P").save(path, "PNG")


def cmyk(path: Path) -> None:
    coffee().convert("CMYK").save(path, "JPEG")


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    coffee().transpose(Image.Transpose.ROTATE_90).save(path, "PNG", exif=exif)


UNREADABLE = [corrupt, truncated, missing, empty]
READABLE = [huge, one_pixel, sixteen_bit, grayscale, rgba, palette, cmyk, rotated]
SIZES = {huge: (10_000, 10_000), one_pixel: (1, 1)}


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("kind", UNREADABLE + READABLE, ids=lambda kind: kind.__name__)
def test_neighbours_keep_their_masks(
    fo, dataset, model, photographs, expected, tmp_path, kind, num_workers
):
    bad = tmp_path / "bad.jpg"
    kind(bad)
    paths = [*photographs[:2], str(bad), *photographs[2:]]
    dataset.add_samples([fo.Sample(filepath=path) for path in paths])
    dataset.apply_model(model, label_field="promerge", batch_size=3, num_workers=num_workers)

    samples = list(dataset)
    result = samples.pop(2).promerge
    for sample, masks in zip(samples, expected, strict=True):
        np.testing.assert_array_equal(pfo.masks_of(sample.promerge, masks.shape[1:]), masks)

    counts = dataset.count_values("promerge.status")
    record = pfo.load_run(dataset, pfo.list_runs(dataset)[0])
    assert record["counts"] == counts and record["images"] == 5
    if kind in UNREADABLE:
        assert counts == {"ok": 4, "failed": 1}
        assert result.status == "failed" and result.detections == []
        assert str(bad) in result.error
    else:
        assert result.status != "failed" and result.error is None
        size = SIZES.get(kind, (120, 180))
        alone = model.pipeline([bad])[0]
        np.testing.assert_array_equal(pfo.masks_of(result, size), alone.masks)


def test_a_rotated_image_has_the_masks_of_what_is_shown(fo, dataset, model, tmp_path):
    coffee().save(tmp_path / "upright.png")
    rotated(tmp_path / "rotated.png")
    assert Image.open(tmp_path / "rotated.png").size == (120, 180)
    for name in ("upright", "rotated"):
        dataset.add_sample(fo.Sample(filepath=str(tmp_path / f"{name}.png")))
    dataset.apply_model(model, label_field="promerge", batch_size=2, num_workers=0)
    upright, turned = (pfo.masks_of(sample.promerge, (120, 180)) for sample in dataset)
    assert len(upright) > 0
    np.testing.assert_array_equal(turned, upright)


def test_a_failed_sample_keeps_no_stale_labels(fo, dataset, model, photographs, tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(Path(photographs[0]).read_bytes())
    dataset.add_sample(fo.Sample(filepath=str(path)))
    dataset.apply_model(model, label_field="promerge", batch_size=1, num_workers=0)
    assert dataset.count("promerge.detections") > 0

    corrupt(path)
    dataset.apply_model(model, label_field="promerge", batch_size=1, num_workers=0)
    labels = dataset.first().promerge
    assert labels.detections == [] and labels.status == "failed"
    assert "image.jpg" in labels.error

    path.write_bytes(Path(photographs[0]).read_bytes())
    dataset.apply_model(model, label_field="promerge", batch_size=1, num_workers=0)
    labels = dataset.first().promerge
    assert len(labels.detections) > 0
    assert (labels.status, labels.error) == ("ok", None)


def test_a_filtered_view_keeps_no_stale_labels(fo, dataset, model, photographs, expected):
    """Not even those that the view hides from FiftyOne."""
    old = [
        fo.Detection(label="old", bounding_box=[0, 0, 1, 1], confidence=c) for c in (0.2, 0.4, 0.9)
    ]
    for path in photographs:
        labels = fo.Detections(detections=[label.copy() for label in old])
        dataset.add_sample(fo.Sample(filepath=path, promerge=labels))
    view = dataset.filter_labels("promerge", fo.ViewField("confidence") > 0.5)
    view.apply_model(model, label_field="promerge", batch_size=4, num_workers=0)
    dataset.reload()
    assert dataset.distinct("promerge.detections.label") == ["fg"]
    assert dataset.values(fo.ViewField("promerge.detections").length()) == list(map(len, expected))
