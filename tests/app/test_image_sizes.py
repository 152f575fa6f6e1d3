"""The sizes and pixels of images are those that a browser shows."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, features

from promerge_fo.images import load_image, read_header

#: What naturalWidth, naturalHeight and a canvas say of an image; None if it is not shown.
SHOWN = """async ([mime, content]) => {
  const image = new Image();
  image.src = `data:${mime};base64,${content}`;
  try { await image.decode(); } catch { return null; }
  document.body.append(image);
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext('2d');
  context.drawImage(image, 0, 0);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.height, canvas.width, Array.from(data)];
}"""
FORMATS = {
    "JPEG": ("image/jpeg", {"quality": 100, "subsampling": 0}),
    "MPO": ("image/jpeg", {"quality": 100, "subsampling": 0}),
    "PNG": ("image/png", {}),
    "WEBP": ("image/webp", {"lossless": True}),
    "AVIF": ("image/avif", {"quality": 100, "subsampling": "4:4:4"}),
    "GIF": ("image/gif", {}),
    "BMP": ("image/bmp", {}),
    "TIFF": ("image/tiff", {}),
    "JPEG2000": ("image/jp2", {}),
    "TGA": ("image/x-tga", {}),
    "PPM": ("image/x-portable-pixmap", {}),
}
NOT_SHOWN = {"TIFF", "JPEG2000", "TGA", "PPM"}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
PICTURE = np.zeros((24, 40, 3), np.uint8)  # four colours
PICTURE[:12, :20], PICTURE[:12, 20:], PICTURE[12:, :20] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def written(format, **options):
    stream = io.BytesIO()
    Image.fromarray(PICTURE).save(stream, format, **FORMATS[format][1], **options)
    return stream.getvalue()


def exif(orientation, order="<", kind=3, count=1):
    """EXIF data with an orientation of a given type (3: 16 bits, 4: 32 bits) and count."""
    value = struct.pack(order + ("H" if kind == 3 else "I"), orientation).ljust(4, b"\0")
    entry = struct.pack(f"{order}HHHI", 1, 0x0112, kind, count) + value
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8)
    return b"Exif\0\0" + header + entry + bytes(4)


def png_chunk(name, content):
    length, check = struct.pack(">I", len(content)), zlib.crc32(name + content)
    return length + name + content + struct.pack(">I", check)


def png_text(key, text):
    info = PngImagePlugin.PngInfo()
    info.add_itxt(key, text)
    return info


def cases():
    """(format, content) of images by what is special about them."""
    for format in FORMATS:
        if format == "AVIF" and not features.check("avif"):
            continue
        for orientation in range(1, 9):
            yield f"{format} {orientation}", format, written(format, exif=exif(orientation))
    for format in ("JPEG", "PNG"):
        yield f"{format} big endian", format, written(format, exif=exif(6, ">"))
        yield f"{format} 0", format, written(format, exif=exif(0))
        yield f"{format} 9", format, written(format, exif=exif(9))
        yield f"{format} 32 bits", format, written(format, exif=exif(6, kind=4))
        yield f"{format} two values", format, written(format, exif=exif(6, count=2))
        yield f"{format} cut off", format, written(format, exif=exif(6)[:20])
    for format in ("JPEG", "WEBP"):
        yield f"{format} XMP", format, written(format, xmp=XMP)
    yield "PNG XMP", "PNG", written("PNG", pnginfo=png_text("XML:com.adobe.xmp", XMP.decode()))
    raw = f"\nexif\n{len(exif(6)):8}\n{exif(6).hex()}\n"
    yield "PNG text", "PNG", written("PNG", pnginfo=png_text("Raw profile type exif", raw))
    png = written("PNG")
    yield "PNG behind the pixels", "PNG", png[:-12] + png_chunk(b"eXIf", exif(6)[6:]) + png[-12:]


def test_sizes_and_pixels_are_the_browser_s(browser, tmp_path):
    page = browser.window().new_page()
    wrong = []
    for name, format, content in cases():
        path = tmp_path / "image"
        path.write_bytes(content)
        encoded = base64.b64encode(content).decode()
        shown = page.evaluate(SHOWN, [FORMATS[format][0], encoded])
        assert (shown is None) == (format in NOT_SHOWN), name
        pixels = load_image(path)
        assert read_header(path).size == pixels.shape[:2], name
        if shown is None:
            continue
        height, width, values = shown
        seen = np.array(values, np.uint8).reshape(height, width, 4)[..., :3]
        if seen.shape != pixels.shape or np.abs(seen.astype(int) - pixels).mean() > 4:
            wrong.append(f"{name}: {seen.shape} in the browser, {pixels.shape} here")
    page.close()
    assert not wrong


@pytest.mark.parametrize("format", ["WEBP", "GIF"])
def test_the_browser_s_rule_differs_by_format(browser, format):
    """What makes the test above one: not all formats are turned."""
    page = browser.window().new_page()
    encoded = base64.b64encode(written(format, exif=exif(6))).decode()
    height, width, _ = page.evaluate(SHOWN, [FORMATS[format][0], encoded])
    page.close()
    assert (height, width) == PICTURE.shape[:2]
