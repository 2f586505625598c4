"""Resampling with antialias in NumPy: TensorFlow's `ScaleAndTranslate`.

The same float32 operations in the same order, so that both give the same
bits. (Only for "lanczos" they may differ in the last one, because C's sine
does.) A picture is the same then whichever of them resizes it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

_F = np.float32
_ZERO, _HALF, _ONE = _F(0), _F(0.5), _F(1)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """What an output pixel takes of the pixels around it.

    Args:
        name: What TensorFlow calls it.
        radius: Where it ends.
        weight: Function from distances, float32 >= 0, to weights.
    """

    name: str
    radius: float
    weight: Callable[[np.ndarray], np.ndarray]


def resample(
    image: np.ndarray, size: tuple[int, int], interpolation: str
) -> np.ndarray:
    """Resizes an image.

    Args:
        image: uint8 `(height, width, channels)`.
        size: The new height and width.
        interpolation: A key of `KERNELS`. When the image shrinks, the kernel
            is stretched as much, as Pillow's.

    Returns:
        float32 `(*size, channels)`, within 0 to 255 or slightly beyond.
    """
    (height, width, channels), kernel = image.shape, KERNELS[interpolation]
    rows = image.reshape(height, -1).astype(np.float32)
    rows = _weighted_sums(rows, size[0], kernel)
    columns = rows.reshape(size[0], width, channels).transpose(1, 0, 2)
    columns = np.ascontiguousarray(columns).reshape(width, -1)
    columns = _weighted_sums(columns, size[1], kernel)
    return columns.reshape(size[1], size[0], channels).transpose(1, 0, 2)


def _weighted_sums(lines, count, kernel):
    """Makes `count` lines of the first axis' lines."""
    which, weights = _spans(len(lines), count, kernel)
    result = np.zeros((count, lines.shape[1]), np.float32)
    # One line after the other: the order of a sum decides its last bit.
    for k in range(which.shape[1]):
        part = lines[which[:, k]]
        part *= weights[:, k, None]
        result += part
    return result


def _spans(old, new, kernel):
    """Returns for each new line the old ones it is made of, and weights."""
    step = _F(1 / float(_F(new / old)))
    stretched = max(step, _ONE)
    centres = (np.arange(new, dtype=np.float32) + _HALF) * step
    reach = _F(kernel.radius) * stretched
    first = np.ceil(centres - reach - _HALF).clip(0, old - 1).astype(int)
    last = np.floor(centres + reach - _HALF).clip(0, old - 1).astype(int)
    which = first[:, None] + np.arange((last - first).max() + 1)
    distances = which.astype(np.float32) + _HALF - centres[:, None]
    weights = kernel.weight(np.abs(distances * (_ONE / stretched)))
    weights = np.where(which <= last[:, None], weights, _ZERO)
    total = np.zeros(new, np.float32)
    for k in range(which.shape[1]):
        total += weights[:, k]
    return which.clip(max=old - 1), weights * (_ONE / total)[:, None]


def _box(x):
    return np.select([x < _HALF, x == _HALF], [_ONE, _HALF], _ZERO)


def _triangle(x):
    return np.maximum(_ZERO, _ONE - x)


def _keys_cubic(x):
    near = ((_F(1.5) * x - _F(2.5)) * x) * x + _ONE
    far = ((_F(-0.5) * x + _F(2.5)) * x - _F(4)) * x + _F(2)
    return np.select([x < 1, x < 2], [near, far], _ZERO)


def _lanczos(x):
    lobes, pi = _F(3), _F(np.pi)
    x = np.maximum(x, _F(1e-3))  # Up to there it is 1.
    product = lobes * _sine(pi * x) * _sine(pi * x / lobes)
    inner = product / (pi * pi * x * x)
    return np.select([x <= _F(1e-3), x <= lobes], [_ONE, inner], _ZERO)


def _sine(x):
    # NumPy's float32 sine is less exact than C's.
    return np.sin(x.astype(np.float64)).astype(np.float32)


KERNELS = {
    "area": Kernel("box", 0.5, _box),
    "bilinear": Kernel("triangle", 1.0, _triangle),
    "bicubic": Kernel("keyscubic", 2.0, _keys_cubic),
    "lanczos": Kernel("lanczos3", 3.0, _lanczos),
}
