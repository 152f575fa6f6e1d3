import pickle
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, features

from promerge_fo import images
from promerge_fo.images import (
    ImageError,
    TooLargeError,
    as_rgb,
    load_image,
    read_header,
    read_image,
)
from promerge_fo.machine import AtOnce

WHITE = (255, 255, 255)


@pytest.fixture
def rgb():
    """(5, 7, 3) uint8, all pixels different."""
    return np.random.default_rng(0).permutation(5 * 7 * 3).astype(np.uint8).reshape(5, 7, 3)


def save(image, path, **options):
    image.save(path, **options)
    return path


def test_a_plain_file_is_read_as_it_is(rgb, tmp_path):
    loaded = load_image(save(Image.fromarray(rgb), tmp_path / "a.png"))
    assert np.array_equal(loaded, rgb)
    assert loaded.dtype == np.uint8 and loaded.flags.c_contiguous and loaded.flags.writeable
    assert np.array_equal(load_image(str(tmp_path / "a.png")), rgb)


STORED = {  # how an upright image is stored under each EXIF orientation
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


# Which formats are turned is the browser's rule: tests/app/test_image_sizes.py asks a browser.
TURNED = {"png": True, "jpg": True, "tiff": True, "webp": False, "avif": True, "gif": False}


@pytest.mark.parametrize("suffix", TURNED)
@pytest.mark.parametrize("orientation", STORED)
def test_the_exif_orientation_is_applied_once_where_browsers_do(rgb, tmp_path, orientation, suffix):
    if suffix == "avif" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    stored = STORED[orientation](rgb)
    shown = rgb if TURNED[suffix] else stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(stored))
    path = save(image, tmp_path / f"a.{suffix}", exif=exif, lossless=True, quality=100)
    assert read_header(path) == (shown.shape[:2], 1 if suffix == "gif" else 3)
    for given in (path, Image.open(path)):
        loaded = load_image(given)
        assert loaded.shape == shown.shape
        if suffix in ("png", "tiff", "webp"):
            assert np.array_equal(loaded, shown)


@pytest.mark.parametrize("orientation", STORED)
def test_large_images_are_turned_in_strips(rgb, tmp_path, monkeypatch, orientation):
    monkeypatch.setattr(images, "_STRIP", 14)  # two rows of the stored image, or fewer
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](rgb)))
    assert np.array_equal(load_image(save(stored, tmp_path / "a.png", exif=exif)), rgb)


def test_an_unreadable_exif_block_does_not_lose_the_image(rgb, tmp_path):
    path = save(Image.fromarray(rgb), tmp_path / "a.png", exif=b"Exif\0\0nonsense")
    assert np.array_equal(load_image(path), rgb)


def grey(values, dtype):
    return Image.fromarray(np.array(values, dtype=dtype))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (grey([[0, 257, 385, 386, 65535]], np.uint16), [0, 1, 1, 2, 255]),
        (grey([[0, 255]], np.uint16), [0, 1]),  # by the file's range, not by its values
        (grey([[0, 200, 255]], np.int32), [0, 200, 255]),
        (grey([[-5, 257, 65535]], np.int32), [0, 1, 255]),
        (grey([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (grey([[-1, 127.6, 255]], np.float32), [0, 128, 255]),
        (grey([[np.nan, 65535, 257]], np.float32), [0, 255, 1]),
        (grey([[0, 77, 255]], np.uint8), [0, 77, 255]),
        (grey([[False, True]], bool), [0, 255]),
    ],
)
def test_grey_values_of_every_depth(image, expected, tmp_path):
    loaded = load_image(image)
    assert loaded.shape == (1, len(expected), 3)
    assert loaded[0].tolist() == [[v] * 3 for v in expected]
    path = save(image, tmp_path / "a.tiff")
    assert np.array_equal(load_image(path), loaded)


def test_16_bit_png(tmp_path):
    path = save(grey([[0, 25700, 65535]], np.uint16), tmp_path / "a.png")
    assert load_image(path)[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize("values", [[[70000]], [[2e9]]])
def test_values_without_meaning_are_refused(values):
    with pytest.raises(ImageError, match=r"has values up to .* scale it"):
        load_image(grey(values, np.float32))


def test_transparent_pixels_are_laid_over_white(tmp_path):
    rgba = Image.fromarray(np.array([[[9, 9, 9, 0], [0, 0, 0, 128], [1, 2, 3, 255]]], np.uint8))
    want = [WHITE, (127, 127, 127), (1, 2, 3)]
    assert [tuple(p) for p in load_image(rgba)[0].tolist()] == want
    assert [tuple(p) for p in load_image(save(rgba, tmp_path / "a.png"))[0].tolist()] == want
    assert [tuple(p) for p in load_image(rgba.convert("LA"))[0, :2].tolist()] == want[:2]
    assert tuple(load_image(rgba.convert("RGBa"))[0, 0]) == WHITE


def test_palettes_with_and_without_transparency(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert load_image(palette)[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    path = save(palette, tmp_path / "a.png", transparency=0)
    assert load_image(path)[0].tolist() == [[255, 255, 255], [40, 50, 60]]


def test_a_transparent_colour_of_rgb(tmp_path):
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    path = save(image, tmp_path / "a.png", transparency=(1, 2, 3))
    assert load_image(path)[0].tolist() == [[255, 255, 255], [4, 5, 6]]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "RGBX"])
def test_other_colour_modes(mode):
    image = Image.new("RGB", (2, 3), (200, 100, 50)).convert(mode)
    loaded = load_image(image).astype(int)
    assert loaded.shape == (3, 2, 3)
    assert np.abs(loaded - (200, 100, 50)).max() <= 6


def test_cmyk_jpeg(tmp_path):
    image = Image.new("RGB", (8, 8), (200, 100, 50)).convert("CMYK")
    loaded = load_image(save(image, tmp_path / "a.jpg", quality=100)).astype(int)
    assert np.abs(loaded - (200, 100, 50)).max() <= 6


@pytest.mark.parametrize("suffix", ["gif", "tiff", "png", "webp"])
def test_the_first_frame_is_taken(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), c) for c in ("red", "blue")]
    options = {"save_all": True, "append_images": frames[1:]}
    path = save(frames[0], tmp_path / f"a.{suffix}", **options, lossless=True)
    assert load_image(path)[0, 0].tolist() == [255, 0, 0]


def test_bad_files_say_what_is_wrong(rgb, tmp_path):
    jpeg = save(Image.fromarray(np.tile(rgb, (40, 40, 1))), tmp_path / "whole.jpg").read_bytes()
    png = save(Image.fromarray(rgb), tmp_path / "whole.png").read_bytes()
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (tmp_path / "cut.png").write_bytes(png[:-30])
    (tmp_path / "corrupt.png").write_bytes(png[:45] + bytes(20) + png[65:])
    (tmp_path / "text.jpg").write_text("<html>not found</html>")
    (tmp_path / "header.jpg").write_bytes(jpeg[:20])
    for name, message in [
        ("absent.jpg", "does not exist; check the path"),
        ("empty.jpg", "is empty .0 bytes.; copy or download it again"),
        ("cut.jpg", "is broken or cut off .*; copy"),
        ("cut.png", "is broken or cut off .*; copy"),
        ("corrupt.png", "is broken or cut off .*; copy"),
        ("text.jpg", "is not an image that Pillow can read; remove it"),
        ("header.jpg", "(not an image|broken)"),
        (".", "is a directory, not an image; give a file"),
        ("a\0b.jpg", "(cannot be read|does not exist)"),
        ("n" * 300, "(cannot be read|does not exist)"),
    ]:
        with pytest.raises(ImageError, match=message) as caught:
            load_image(tmp_path / name)
        assert str(tmp_path) in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_the_size_limit_is_this_projects_own(tmp_path, monkeypatch):
    path = save(Image.new("1", (20_000, 10_000)), tmp_path / "large.png")
    limit = Image.MAX_IMAGE_PIXELS
    assert read_header(path).size == (10_000, 20_000)  # Pillow alone refuses 200 megapixels
    assert limit == Image.MAX_IMAGE_PIXELS
    monkeypatch.setenv("PROMERGE_MAX_PIXELS", "199000000")
    for read in (read_header, load_image):
        with pytest.raises(TooLargeError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path} has 20000 x 10000 = 200,000,000 pixels, but at most 199,000,000 are read; cut "
            "it into tiles, shrink it, or set PROMERGE_MAX_PIXELS in the environment to more"
        )
    monkeypatch.setenv("PROMERGE_MAX_PIXELS", "1e9")
    with pytest.raises(ValueError, match="PROMERGE_MAX_PIXELS is '1e9', but must be a whole"):
        read_header(path)


def test_large_images_are_read_one_at_a_time(rgb, tmp_path, monkeypatch):
    """Small ones are read together, as long as their pixels fit."""
    monkeypatch.setattr(images, "READING", AtOnce(80))
    small = save(Image.fromarray(rgb), tmp_path / "small.png")  # 35 pixels
    large = save(Image.new("RGB", (10, 10)), tmp_path / "large.png")
    now, most = Counter(), Counter()
    lock = threading.Lock()

    def use(pixels):
        with lock:
            now[pixels.size] += 1
            for size in now:
                most[size] = max(most[size], now[size])
            assert now[300] == 0 or now.total() == 1
        time.sleep(0.01)
        with lock:
            now[pixels.size] -= 1
        return pixels.shape[0]

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(read_image, [small, large, small, small] * 5, [use] * 20))
    assert rows == [5, 10, 5, 5] * 5
    assert most == {35 * 3: 2, 300: 1}


def test_pillows_limit_survives_many_threads(rgb, tmp_path):
    path = save(Image.fromarray(rgb), tmp_path / "a.png")
    limit = Image.MAX_IMAGE_PIXELS
    threads = [
        threading.Thread(target=lambda: [load_image(path) for _ in range(50)]) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limit == Image.MAX_IMAGE_PIXELS


def test_arrays(rgb):
    assert as_rgb(rgb) is rgb
    assert np.array_equal(as_rgb(Image.fromarray(rgb)), rgb)
    assert as_rgb(rgb[..., 0]).tolist() == np.repeat(rgb[..., :1], 3, axis=2).tolist()
    assert as_rgb(rgb[..., :1]).shape == (5, 7, 3)
    assert np.array_equal(as_rgb(rgb.astype(np.uint16) * 257), rgb)
    assert np.array_equal(as_rgb(rgb[..., 0] > 50)[..., 1], (rgb[..., 0] > 50) * 255)
    rgba = np.concatenate([rgb, np.zeros((5, 7, 1), np.uint8)], axis=2)
    assert (as_rgb(rgba) == 255).all()


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (np.zeros((4, 4, 3)), ImageError, "float64 array .* multiply floats"),
        (np.zeros((3, 4, 5), np.uint8), ImageError, "move the channels to the end"),
        (np.zeros((2, 4, 4, 3), np.uint8), ImageError, "must be"),
        (np.zeros((0, 4, 3), np.uint8), ImageError, "no pixels"),
        ("a.jpg", TypeError, "is a str.*load_image"),
        (None, TypeError, "is a NoneType"),
    ],
)
def test_arrays_that_are_no_images_are_refused(image, error, message):
    with pytest.raises(error, match=message):
        as_rgb(image)


def test_a_pil_image_without_pixels_is_refused():
    with pytest.raises(ImageError, match="no pixels"):
        load_image(Image.new("RGB", (0, 4)))


def test_an_image_that_finds_no_memory_is_not_said_to_be_broken(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (30, 20)).save(path)

    def scarce(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "load", scarce)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", scarce)
    with pytest.raises(ImageError, match=r"a.png: there was not enough memory to read the image"):
        load_image(path)
