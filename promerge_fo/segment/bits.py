"""Patch masks as rows of bits, which the sequential steps (ledger, merging) compare quickly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promerge_fo.kernels import kernel

__all__ = ["count_bits", "pack", "popcount", "unpack"]


def pack(masks: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Masks (n, ...) bool to rows (n, words) of 64 patches each, padded with zeros."""
    flat = masks.reshape(len(masks), np.prod(masks.shape[1:], dtype=np.intp))
    words = -(-flat.shape[1] // 64)
    packed = np.zeros((len(flat), words * 8), dtype=np.uint8)
    bits = np.packbits(flat, axis=1)
    packed[:, : bits.shape[1]] = bits
    return packed.view(np.uint64)


def unpack(rows: NDArray[np.uint64], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The inverse of :func:`pack`: rows (n, words) to masks (n, h, w) bool."""
    size = shape[0] * shape[1]
    flat = np.unpackbits(rows.view(np.uint8), axis=1, count=size)
    return flat.astype(np.bool_).reshape(len(rows), *shape)


@kernel(inline="always")
def popcount(word):  # type: ignore[no-untyped-def]
    """Set bits of one uint64."""
    word -= (word >> np.uint64(1)) & np.uint64(0x5555555555555555)
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333)
    )
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@kernel
def count_bits(rows):  # type: ignore[no-untyped-def]
    """Set bits of each row of (n, words) uint64: (n,) int64."""
    counts = np.zeros(rows.shape[0], dtype=np.int64)
    for i in range(rows.shape[0]):
        for word in rows[i]:
            counts[i] += np.int64(popcount(word))
    return counts
