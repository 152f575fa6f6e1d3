"""Generated scenes: patch features and images of objects whose true masks are known."""

from __future__ import annotations

import subprocess

import numpy as np

from promerge_fo.encoder.texture import TextureEncoder


def feature_scene(
    seed: int, grid: tuple[int, int] = (30, 30), channels: int = 16, noise: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Features (C, h, w) float32 and the true masks (n, h, w) of ellipses on a background.

    Objects of the same image are more like each other than like the background, some share a
    feature, and some fade into the background, so that every step of the method has work.
    """
    rng = np.random.default_rng(seed)
    h, w = grid
    background = rng.standard_normal(channels)
    rows, columns = np.mgrid[:h, :w]
    features = np.broadcast_to(background, (h, w, channels)).copy()
    common = -0.5 * background + 0.6 * rng.standard_normal(channels)
    kinds = rng.standard_normal((3, channels))
    truths = []
    for _ in range(rng.integers(1, 7)):
        centre = rng.uniform(0.15, 0.85, 2) * (h, w)
        radii = rng.uniform(0.06, 0.22, 2) * (h, w)
        inside = ((rows - centre[0]) / radii[0]) ** 2 + ((columns - centre[1]) / radii[1]) ** 2 < 1
        if inside.sum() < 4:
            continue
        fade = rng.uniform(0, 0.5)
        feature = fade * background + (1 - fade) * (common + kinds[rng.integers(3)])
        features[inside] = feature
        for truth in truths:
            truth &= ~inside
        truths.append(inside)
    features += noise * np.linalg.norm(background) * rng.standard_normal((h, w, channels))
    truths = [t for t in truths if t.sum() >= 4]
    masks = np.array(truths) if truths else np.zeros((0, h, w), dtype=bool)
    return np.ascontiguousarray(features.transpose(2, 0, 1), dtype=np.float32), masks


def iou_matrix(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of every mask of (n, h, w) with every mask of (m, h, w)."""
    a, b = (x.reshape(len(x), np.prod(x.shape[1:], dtype=int)).astype(np.float64) for x in (a, b))
    shared = a @ b.T
    union = a.sum(axis=1)[:, None] + b.sum(axis=1)[None] - shared
    return shared / np.maximum(union, 1)


def painted_scene(seed: int, size: int = 240) -> tuple[np.ndarray, np.ndarray]:
    """An image (size, size, 3) uint8 of three rectangles, and their masks (n, size, size)."""
    rng = np.random.default_rng(seed)
    background = rng.integers(30, 226, 3)
    image = np.empty((size, size, 3))
    image[:] = background
    truths: list[np.ndarray] = []
    for _ in range(3):
        for _ in range(50):
            h, w = rng.integers(5, 10, 2) * 8
            y, x = (8 * rng.integers(2, (size - side) // 8 - 1) for side in (h, w))
            mask = np.zeros((size, size), dtype=bool)
            mask[y : y + h, x : x + w] = True
            if not any((mask & truth).any() for truth in truths):
                break
        else:
            continue
        colour = rng.integers(0, 256, 3)
        while np.abs(colour - background).sum() < 150:
            colour = rng.integers(0, 256, 3)
        image[mask] = colour
        truths.append(mask)
    image += rng.normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8), np.array(truths)


class Lifted(TextureEncoder):
    """Features with a common component, which lifts all cosines, as other transformers' have."""

    wants_calibration = True

    def _encode(self, pixels, with_prompt_scores):
        features, scores = super()._encode(pixels, with_prompt_scores)
        return features + 3, scores


def scenes_of_kinds(
    seed: int, kinds: int = 4, images: int = 30, size: int = 240
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Images of objects of a few kinds, which differ in colour and texture.

    Each image has another background; so a kind differs from it in another way.

    Returns:
        For each image: the image (size, size, 3) uint8, the masks (n, size, size) of two to four
        objects that do not overlap, and the kind (n,) of each, from 0.
    """
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size]
    colours: list[np.ndarray] = []

    def another_colour() -> np.ndarray:
        while True:
            colour = rng.integers(20, 236, 3)
            if all(np.abs(colour - other).sum() > 110 for other in colours):
                return colour

    while len(colours) < kinds:
        colours.append(another_colour())
    angles, periods = rng.uniform(0, np.pi, kinds), rng.uniform(5, 20, kinds)
    strengths = rng.uniform(0, 50, kinds)
    scenes = []
    for _ in range(images):
        image = np.broadcast_to(another_colour(), (size, size, 3)).astype(np.float64)
        masks, given = [], []
        taken = np.zeros((size, size), dtype=bool)
        for _ in range(rng.integers(2, 5)):
            kind = int(rng.integers(kinds))
            (height, width), (cy, cx) = rng.uniform(0.09, 0.18, 2), rng.uniform(0.2, 0.8, 2)
            mask = ((y / size - cy) / height) ** 2 + ((x / size - cx) / width) ** 2 < 1
            if (mask & taken).any():
                continue
            along = x * np.cos(angles[kind]) + y * np.sin(angles[kind])
            stripes = np.sign(np.sin(2 * np.pi * along / periods[kind] + rng.uniform(0, 6)))
            painted = colours[kind] + rng.normal(0, 6, 3) + (strengths[kind] * stripes)[..., None]
            image[mask] = painted[mask]
            taken |= mask
            masks.append(mask)
            given.append(kind)
        image += rng.normal(0, 5, image.shape)
        scenes.append((np.clip(image, 0, 255).astype(np.uint8), np.array(masks), np.array(given)))
    return scenes


def write_clips(folder, count, frames):
    """Write clips of a square that moves past a disc, 160 x 120 pixels; returns their paths.

    They are in H.264, which browsers play; it takes ffmpeg.
    """
    import cv2

    given = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "160x120", "-r", "10", "-i", "-")
    paths = []
    for number in range(count):
        clip = np.full((frames, 120, 160, 3), 60, np.uint8)
        for step, image in enumerate(clip):
            corner = (10 + 5 * step, 30 + 10 * number)
            cv2.rectangle(image, corner, (corner[0] + 50, corner[1] + 50), (250, 200, 40), -1)
            cv2.circle(image, (125, 35), 20, (50, 50, 200), -1)
        paths.append(str(folder / f"clip-{number}.mp4"))
        command = ["ffmpeg", "-v", "error", *given, "-pix_fmt", "yuv420p", paths[-1]]
        subprocess.run(command, input=clip.tobytes(), check=True)
    return paths


def kind_of(mask: np.ndarray, masks: np.ndarray, kinds: np.ndarray) -> int | None:
    """The kind of object that a mask (H, W) shows most of.

    Args:
        mask: of an image.
        masks: (n, H, W) the objects of the image.
        kinds: (n,) theirs.

    Returns:
        None where half of the mask and more is background.
    """
    pixels = np.bincount(kinds, (masks & mask).sum(axis=(1, 2)))
    return int(pixels.argmax()) if pixels.max() > mask.sum() / 2 else None
