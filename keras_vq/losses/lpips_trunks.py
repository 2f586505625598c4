"""The networks that LPIPS compares images in, as torchvision defines them.

They are functions of images and a list of constant arrays, so that there is
nothing for a model to track, train or save.
"""

import dataclasses
from collections.abc import Callable

from keras import ops

_CHANNELS_LAST = "channels_last"


@dataclasses.dataclass(frozen=True)
class Trunk:
    """A convolutional network of which some activations are compared.

    Attributes:
        convolutions: For every convolution, in the order of the network: its
            name in torchvision's `features`, and its kernel's shape
            (height, width, channels in, channels out).
        widths: Channels of the activations that are compared.
        min_size: Least height and width of the images, in pixels.
        features: Function of images and of the flat list of kernels and
            biases, which gives the activations.
    """

    convolutions: tuple[tuple[str, tuple[int, int, int, int]], ...]
    widths: tuple[int, ...]
    min_size: int
    features: Callable


def _conv(images, arrays, strides=1, padding="same"):
    kernel, bias = next(arrays), next(arrays)
    outputs = ops.conv(
        images, kernel, strides, padding, data_format=_CHANNELS_LAST
    )
    return ops.relu(outputs + bias)


_VGG16_BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def _vgg16_convolutions():
    index, width_in = 0, 3
    for width, count in _VGG16_BLOCKS:
        for _ in range(count):
            yield str(index), (3, 3, width_in, width)
            index += 2  # a convolution and its ReLU
            width_in = width
        index += 1  # the pool


def _vgg16_features(images, arrays):
    """relu1_2, relu2_2, relu3_3, relu4_3 and relu5_3."""
    arrays = iter(arrays)
    x, outputs = images, []
    for _, count in _VGG16_BLOCKS:
        if outputs:
            x = ops.max_pool(x, 2, 2, "valid", data_format=_CHANNELS_LAST)
        for _ in range(count):
            x = _conv(x, arrays)
        outputs.append(x)
    return outputs


# What follows the first convolution: index in torchvision's `features`, and
# for a fire module its widths (input, squeezed, each half of the output).
_FIRES = (
    (2, None),
    (3, (64, 16, 64)),
    (4, (128, 16, 64)),
    (5, None),
    (6, (128, 32, 128)),
    (7, (256, 32, 128)),
    (8, None),
    (9, (256, 48, 192)),
    (10, (384, 48, 192)),
    (11, (384, 64, 256)),
    (12, (512, 64, 256)),
)
# LPIPS looks behind the first ReLU and behind these.
_SQUEEZE_OUTPUTS = (4, 7, 9, 10, 11, 12)


def _squeeze_convolutions():
    yield "0", (3, 3, 3, 64)
    for index, widths in _FIRES:
        if widths is None:
            continue
        width_in, squeezed, half = widths
        yield f"{index}.squeeze", (1, 1, width_in, squeezed)
        yield f"{index}.expand1x1", (1, 1, squeezed, half)
        yield f"{index}.expand3x3", (3, 3, squeezed, half)


def _squeeze_features(images, arrays):
    arrays = iter(arrays)
    x = _conv(images, arrays, strides=2, padding="valid")
    outputs = [x]
    for index, widths in _FIRES:
        if widths is None:
            x = _pool_ceil(x)
        else:
            squeezed = _conv(x, arrays)
            halves = [_conv(squeezed, arrays), _conv(squeezed, arrays)]
            x = ops.concatenate(halves, axis=-1)
        if index in _SQUEEZE_OUTPUTS:
            outputs.append(x)
    return outputs


def _pool_ceil(x):
    """Max pool 3 x 3, stride 2, that also takes an incomplete last window.

    One row and column more complete the windows at even sizes, and fit no
    further window in at odd ones. Zeros cannot win over a ReLU's output.
    """
    x = ops.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)))
    return ops.max_pool(x, 3, 2, "valid", data_format=_CHANNELS_LAST)


TRUNKS = {
    "vgg": Trunk(
        tuple(_vgg16_convolutions()),
        tuple(width for width, _ in _VGG16_BLOCKS),
        16,
        _vgg16_features,
    ),
    "squeeze": Trunk(
        tuple(_squeeze_convolutions()),
        (64, 128, 256, 384, 384, 512, 512),
        17,
        _squeeze_features,
    ),
}
