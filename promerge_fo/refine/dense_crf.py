# mypy: disable-error-code="untyped-decorator"
"""The fully connected CRF of Krähenbühl and Koltun (2011), for all masks of an image at once.

With two labels and Potts compatibility, mean field has one unknown a pixel, exactly: let u be the
unary energies, Q the marginals and K a Gaussian filter. The logit d of the foreground obeys

    d = u_bg - u_fg + 7 K_spatial s + 10 K_bilateral s,    s = Q_fg - Q_bg = tanh(d / 2)

so a mask is one channel of the filters. The filters run on permutohedral lattices, which depend
only on the image: they are built once, and all masks of the image go through them together, in
the lanes of SIMD registers.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

from promerge_fo.kernels import kernel
from promerge_fo.refine.permutohedral import Lattice, build_lattice

__all__ = ["dense_crf"]

# The parameters of ProMerge's released code; deviations in pixels and in grey levels.
SPATIAL_DEVIATION = 3
SPATIAL_COMPATIBILITY = 7
BILATERAL_DEVIATION = 50
COLOUR_DEVIATION = 5
BILATERAL_COMPATIBILITY = 10
ITERATIONS = 10

# Constants, so that the loops over them unroll.
SPATIAL_CORNERS = 3
BILATERAL_CORNERS = 6

_WIDTHS = (4, 8, 16)  # numbers of lanes that are compiled; a pass takes the smallest that fits
_CACHED_PIXELS = 2**20  # spatial lattices of larger images are not cached (24 bytes a pixel)


def dense_crf(
    image: NDArray[np.uint8], masks: NDArray[np.bool_], scale: float = 1.0
) -> NDArray[np.bool_]:
    """Fit masks to the edges of the image.

    The unary energies are those of softmax(1 - mask, mask); the marginals after ten iterations
    decide. The result of a mask does not depend on the other masks.

    Args:
        image: (H, W, 3) uint8, H and W at least 1.
        masks: (n, H, W) bool, n may be 0.
        scale: that the filters' deviations in pixels are multiplied with, over 0.

    Returns:
        (n, H, W) bool.

    Raises:
        ValueError: masks of another size than the image, or an image of more than 350 megapixels.
    """
    n, height, width = masks.shape
    if image.shape != (height, width, 3):
        raise ValueError(
            f"masks are {masks.shape} and the image is {image.shape}, but masks must be (n, H, W) "
            "for an image (H, W, 3); refine_masks takes masks of another size"
        )
    refined = np.empty((n, height * width), dtype=bool)
    if n == 0:
        return refined.reshape(masks.shape)
    spatial = _spatial_lattice(height, width, scale)
    bilateral = _bilateral_lattice(image, scale)
    channels = masks.reshape(n, -1).view(np.int8)
    for start in range(0, n, _WIDTHS[-1]):
        chunk = slice(start, min(start + _WIDTHS[-1], n))
        used = chunk.stop - chunk.start
        lanes = (np.float32(0),) * next(w for w in _WIDTHS if w >= used)
        unary = np.zeros((height * width, len(lanes)), np.int8)
        unary[:, :used] = 2 * channels[chunk].T - 1
        _mean_field(unary, spatial, bilateral, lanes)
        refined[chunk] = unary[:, :used].T
    return refined.reshape(masks.shape)


def _bilateral_lattice(image: NDArray[np.uint8], scale: float = 1.0) -> Lattice:
    """The lattice of positions and colours, its weights ready for _mean_field."""
    height, width = image.shape[:2]
    features = np.empty((5, height * width), np.float32)
    features[:2] = _positions(height, width) / np.float32(BILATERAL_DEVIATION * scale)
    features[2:] = image.reshape(-1, 3).T / np.float32(COLOUR_DEVIATION)
    return _normalised(build_lattice(features), BILATERAL_COMPATIBILITY)


def _spatial_lattice(height: int, width: int, scale: float = 1.0) -> Lattice:
    """The lattice of positions, its weights ready for _mean_field."""
    if height * width > _CACHED_PIXELS:
        return _cached_spatial_lattice.__wrapped__(height, width, scale)
    return _cached_spatial_lattice(height, width, scale)


@lru_cache(maxsize=4)
def _cached_spatial_lattice(height: int, width: int, scale: float) -> Lattice:
    features = _positions(height, width) / np.float32(SPATIAL_DEVIATION * scale)
    return _normalised(build_lattice(features), SPATIAL_COMPATIBILITY)


def _positions(height: int, width: int) -> NDArray[np.float32]:
    """(2, H W) float32: x and y of every pixel."""
    return np.indices((height, width), dtype=np.float32)[::-1].reshape(2, -1)


def _normalised(lattice: Lattice, compatibility: float) -> Lattice:
    """The lattice with all factors of the filter multiplied into its weights.

    The filter is compatibility * N a S B S^T N: slice, blur, splat. With a, the blur preserves
    sums in the middle of the lattice; N = (a S B S^T 1)^(-1/2) for each point is the symmetric
    normalisation of the CRF. Every weight is used on both sides, hence the square roots.
    """
    dimensions = lattice.weights.shape[1] - 1
    gain = 1 / (1 + 2.0**-dimensions)
    _normalise(lattice, np.float32(gain), np.float32(compatibility * gain), (np.float32(0),) * 4)
    return lattice


# ------------------------------------------------------------------------------------------------
# SIMD. LLVM does not vectorise loops over a few lanes by itself, so there is a numba type for a row
# of float32 lanes. A row is as wide as the tuple ``lanes`` that the kernels are called with.
# The kernels that use it must be in this file, as numba's cache of a kernel watches only its file.


class _Row(types.Type):  # type: ignore[misc]
    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Row({width})")


@register_model(_Row)
class _RowModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, row: _Row) -> None:
        super().__init__(manager, row, ir.VectorType(ir.FloatType(), row.width))


def _constant(value: float, vector: Any) -> Any:
    return ir.Constant(vector, [value] * vector.count)


def _multiply_add_rows(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """The row a * b + c, which may take one instruction ("contract")."""
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _polynomial(builder: Any, x: Any, coefficients: tuple[float, ...]) -> Any:
    """The row of a polynomial of x, from the highest coefficient on (Horner's rule)."""
    value = _constant(coefficients[0], x.type)
    for coefficient in coefficients[1:]:
        value = _multiply_add_rows(builder, value, x, _constant(coefficient, x.type))
    return value


def _spread(builder: Any, scalar: Any, vector: Any) -> Any:
    """The scalar in every lane."""
    row = ir.Constant(vector, ir.Undefined)
    for lane in range(vector.count):
        row = builder.insert_element(row, scalar, ir.Constant(ir.IntType(32), lane))
    return row


def _row_pointer(
    context: Any, builder: Any, array_type: Any, array: Any, i: Any, width: int
) -> Any:
    """A pointer to row i of an array, typed as a vector of the array's elements."""
    data = context.make_array(array_type)(context, builder, array).data
    first = builder.gep(data, [builder.mul(i, ir.Constant(i.type, width))])
    element = context.get_data_type(array_type.dtype)
    return builder.bitcast(first, ir.VectorType(element, width).as_pointer())


@intrinsic
def _load(typingctx: Any, array: Any, i: Any, lanes: Any) -> Any:
    """Row i of a C-contiguous (m, width) array of float32, or of int8 as float32."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type, row = signature.args[0], signature.return_type
        pointer = _row_pointer(context, builder, array_type, args[0], args[1], row.width)
        values = builder.load(pointer, align=1)
        if array_type.dtype == types.int8:
            return builder.sitofp(values, context.get_value_type(row))
        return values

    return _Row(lanes.count)(array, types.intp, lanes), codegen


@intrinsic
def _store(typingctx: Any, array: Any, i: Any, row: Any) -> Any:
    """Write row i of a C-contiguous (m, width) float32 array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type = signature.args[0]
        pointer = _row_pointer(context, builder, array_type, args[0], args[1], row.width)
        builder.store(args[2], pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, row), codegen


@intrinsic
def _store_positive(typingctx: Any, array: Any, i: Any, row: Any) -> Any:
    """Write 1 where row > 0, else 0, to row i of a C-contiguous (m, width) int8 array."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array_type = signature.args[0]
        pointer = _row_pointer(context, builder, array_type, args[0], args[1], row.width)
        positive = builder.fcmp_ordered(">", args[2], _constant(0.0, args[2].type))
        builder.store(builder.zext(positive, pointer.type.pointee), pointer, align=1)
        return context.get_dummy_value()

    return types.void(array, types.intp, row), codegen


@intrinsic
def _filled(typingctx: Any, scalar: Any, lanes: Any) -> Any:
    """A row with the same float32 in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _spread(builder, args[0], context.get_value_type(signature.return_type))

    return _Row(lanes.count)(types.float32, lanes), codegen


@intrinsic
def _multiply_add(typingctx: Any, scalar: Any, row: Any, addend: Any) -> Any:
    """The row scalar * row + addend."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        factor = _spread(builder, args[0], args[1].type)
        return _multiply_add_rows(builder, factor, args[1], args[2])

    return row(types.float32, row, row), codegen


# tanh(x) = x P(x^2) / Q(x^2) on [-8, 8]: a minimax fit, off by at most 5e-7 in float32.
_TANH_P = (1.1310297850286588e-05, 0.0029388354159891605, 0.12913648784160614, 0.9999993443489075)
_TANH_Q = (
    2.423863350031752e-07,
    0.00023702949692960829,
    0.023763859644532204,
    0.4624674618244171,
    1.0,
)


@intrinsic
def _tanh_half(typingctx: Any, row: Any) -> Any:
    """tanh(row / 2)."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0].type
        x = builder.fmul(args[0], _constant(0.5, vector))
        for comparison, bound in (("<", 8.0), (">", -8.0)):
            limit = _constant(bound, vector)
            x = builder.select(builder.fcmp_ordered(comparison, x, limit), x, limit)
        square = builder.fmul(x, x)
        p, q = (_polynomial(builder, square, some) for some in (_TANH_P, _TANH_Q))
        return builder.fdiv(builder.fmul(x, p), q)

    return row(row), codegen


# ------------------------------------------------------------------------------------------------


@kernel
def _splat(values: Any, lattice: Any, corners: int, p: int, row: Any, lanes: Any) -> None:
    """Add a point's row to the corners of its simplex."""
    for k in range(corners):
        v = lattice.vertices[p, k]
        _store(values, v, _multiply_add(lattice.weights[p, k], row, _load(values, v, lanes)))


@kernel
def _slice(values: Any, lattice: Any, corners: int, p: int, row: Any, lanes: Any) -> Any:
    """The row plus the filter's result at a point, from the corners of its simplex."""
    for k in range(corners):
        value = _load(values, lattice.vertices[p, k], lanes)
        row = _multiply_add(lattice.weights[p, k], value, row)
    return row


@kernel
def _blur(values: Any, chains: Any, lanes: Any) -> None:
    """Blur in place along each axis in turn with the weights 1/2, 1, 1/2.

    In place, and chain by chain, because memory limits the speed: each row is read and written
    once. Between two chains the window slides over row m, which is 0; the result for that row is
    written to the row after it, which is never read.
    """
    half = np.float32(0.5)
    m = chains[0]
    before = here = _filled(np.float32(0), lanes)
    for c in range(1, len(chains)):
        after = _load(values, chains[c], lanes)
        row = _multiply_add(half, after, _multiply_add(half, before, here))
        vertex = chains[c - 1]
        _store(values, vertex + (vertex == m), row)
        before, here = here, after


@kernel
def _rows(chains: Any, lanes: Any) -> Any:
    """Zeros for each vertex, and for the two rows after them that _blur uses."""
    return np.zeros((chains[0] + 2, len(lanes)), np.float32)


@kernel
def _normalise(lattice: Any, gain: Any, scaled_gain: Any, lanes: Any) -> None:
    """Multiply each point's weights by (scaled_gain)^(1/2) (gain S B S^T 1)^(-1/2)."""
    points, corners = lattice.vertices.shape
    values = _rows(lattice.chains, lanes)
    one = _filled(np.float32(1), lanes)
    for p in range(points):
        _splat(values, lattice, corners, p, one, lanes)
    _blur(values, lattice.chains, lanes)
    for p in range(points):
        total = np.float32(0)
        for k in range(corners):
            total += lattice.weights[p, k] * values[lattice.vertices[p, k], 0]
        factor = np.sqrt(scaled_gain / (gain * total + np.float32(1e-20)))
        for k in range(corners):
            lattice.weights[p, k] *= factor


@kernel
def _mean_field(unary: Any, spatial: Any, bilateral: Any, lanes: Any) -> None:
    """Ten iterations of mean field (Algorithm 1 of the paper).

    ``unary`` is (pixels, lanes) int8: u_bg - u_fg goes in; 1 for foreground, else 0, comes out.
    """
    near, near_next = _rows(spatial.chains, lanes), _rows(spatial.chains, lanes)
    far, far_next = _rows(bilateral.chains, lanes), _rows(bilateral.chains, lanes)
    for p in range(len(unary)):
        row = _tanh_half(_load(unary, p, lanes))
        _splat(near, spatial, SPATIAL_CORNERS, p, row, lanes)
        _splat(far, bilateral, BILATERAL_CORNERS, p, row, lanes)
    for iteration in range(ITERATIONS):
        _blur(near, spatial.chains, lanes)
        _blur(far, bilateral.chains, lanes)
        near_next[:] = 0
        far_next[:] = 0
        for p in range(len(unary)):
            row = _load(unary, p, lanes)
            row = _slice(near, spatial, SPATIAL_CORNERS, p, row, lanes)
            row = _slice(far, bilateral, BILATERAL_CORNERS, p, row, lanes)
            if iteration == ITERATIONS - 1:
                _store_positive(unary, p, row)
            else:
                # The next iteration's splat is in the same pass: no marginals are kept.
                row = _tanh_half(row)
                _splat(near_next, spatial, SPATIAL_CORNERS, p, row, lanes)
                _splat(far_next, bilateral, BILATERAL_CORNERS, p, row, lanes)
        near, near_next = near_next, near
        far, far_next = far_next, far
