"""Weights of LPIPS: its linear layers, and the trunks VGG16 and SqueezeNet.

Read are torchvision's files, a state dict of PyPI `lpips` (with the trunk),
checkpoints of taming-transformers (which hold all of it), and SqueezeNet 1.1
as a Keras h5 file converted from Caffe.
"""

import os
import re

import h5py
import numpy as np

from keras_vq.convert.errors import (
    DamagedFileError,
    LayoutError,
    UnsafeFileError,
)
from keras_vq.convert.torch_file import read_torch_file

# What is subtracted from images in [-1, 1], and what they are divided by.
TORCHVISION_SCALING = ((-0.030, -0.088, -0.188), (0.458, 0.448, 0.450))
# Caffe's networks take 0..255 minus these means, here in the order RGB.
_CAFFE_MEANS = (123.68, 116.779, 103.939)
CAFFE_SCALING = (
    tuple(mean / 127.5 - 1.0 for mean in _CAFFE_MEANS),
    (1.0 / 127.5,) * 3,
)
_TAMING = "loss.perceptual_loss."
_PREFIXES = ("features.", "net.", f"{_TAMING}net.")
# torchvision's fire modules begin at index 3, with gaps for the pools.
_CAFFE_FIRES = {"3": 2, "4": 3, "6": 4, "7": 5, "9": 6, "10": 7, "11": 8}
_CAFFE_FIRES["12"] = 9


def read_linear(
    path: str | os.PathLike, widths: tuple[int, ...]
) -> list[np.ndarray]:
    """Reads the linear layers of LPIPS v0.1.

    Args:
        path: `vgg.pth` or `squeeze.pth` of LPIPS v0.1, a state dict of PyPI
            `lpips`, or a checkpoint of taming-transformers.
        widths: How many channels each compared activation has.

    Returns:
        One array of shape (C,) for every activation.

    Raises:
        ConversionError: If the file does not hold exactly these layers.
    """
    found = {
        name.removeprefix(_TAMING): array
        for name, array in read_torch_file(path, select=_is_linear).items()
    }
    expected = {
        f"lin{i}.model.1.weight": (1, width, 1, 1)
        for i, width in enumerate(widths)
    }
    _check_layout(found, expected, path, "the linear layers of this trunk")
    return [_checked(found[name], path).reshape(-1) for name in expected]


def read_trunk(
    path: str | os.PathLike,
    convolutions: tuple[tuple[str, tuple[int, int, int, int]], ...],
) -> tuple[list[np.ndarray], tuple]:
    """Reads a trunk of LPIPS from a torch file or SqueezeNet's Keras file.

    Args:
        path: torchvision's file, a state dict of PyPI `lpips`, a checkpoint
            of taming-transformers, or the Keras h5 file.
        convolutions: For every convolution its name in torchvision, and the
            shape (height, width, channels in, channels out) of its kernel.

    Returns:
        Kernels and biases, alternating, for channels last; and the scaling
        that these weights want: what to subtract from RGB images in [-1, 1],
        and what to divide them by.

    Raises:
        ConversionError: If the file does not hold exactly this trunk.
    """
    with open(path, "rb") as file:
        is_h5 = file.read(8) == b"\x89HDF\r\n\x1a\n"
    if is_h5:
        return _read_keras_squeezenet(path, convolutions), CAFFE_SCALING
    found = {
        _torchvision_name(name): array
        for name, array in read_torch_file(path, select=_is_trunk).items()
    }
    expected = {}
    for name, (height, width, channels, filters) in convolutions:
        expected[f"{name}.weight"] = (filters, channels, height, width)
        expected[f"{name}.bias"] = (filters,)
    _check_layout(found, expected, path, "this trunk")
    arrays = [_checked(found[name], path) for name in expected]
    return [
        np.ascontiguousarray(a.transpose(2, 3, 1, 0)) if a.ndim == 4 else a
        for a in arrays
    ], TORCHVISION_SCALING


def _is_linear(name: str) -> bool:
    pattern = r"lin\d+\.model\.1\.weight"
    return bool(re.fullmatch(pattern, name.removeprefix(_TAMING)))


def _is_trunk(name: str) -> bool:
    return name.startswith(_PREFIXES)


def _torchvision_name(name: str) -> str:
    """The name within `features`; LPIPS puts a slice's number before it."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return re.sub(r"^slice\d+\.", "", name)


def _read_keras_squeezenet(path, convolutions) -> list[np.ndarray]:
    if len(convolutions) != 25:
        raise LayoutError(
            "Expected the weights of torchvision's VGG16, which were trained "
            "for other input than the ones of Keras and cannot be replaced "
            f"by them. Received: {os.fspath(path)}, an h5 file."
        )
    shapes = {}
    for name, shape in convolutions:
        index, _, part = name.partition(".")
        layer = "conv1"
        if part:
            part = "squeeze1x1" if part == "squeeze" else part
            layer = f"fire{_CAFFE_FIRES[index]}/{part}"
        shapes[f"{layer}/kernel"] = shape
        shapes[f"{layer}/bias"] = shape[-1:]
    try:
        found = _read_h5(path, shapes)
    except (DamagedFileError, UnsafeFileError, LayoutError):
        raise
    # What h5py raises depends on where in the file the damage is.
    except Exception as error:
        raise DamagedFileError(
            f"{os.fspath(path)} cannot be read ({error!s:.200}). Fetch it "
            "again."
        ) from error
    # From Caffe's BGR to RGB: the same sum over channels in another order.
    found["conv1/kernel"] = found["conv1/kernel"][:, :, ::-1].copy()
    return [found[name] for name in shapes]


def _read_h5(path, shapes) -> dict[str, np.ndarray]:
    with h5py.File(path, "r") as file:
        datasets = {}

        def collect(name, item):
            # Keras: layer / the layer's name again, numbered / kernel:0.
            if isinstance(item, h5py.Dataset):
                layer = re.match(r"(conv1|fire\d/\w+)/", name)
                kind = name.rpartition("/")[2].removesuffix(":0")
                known = f"{layer[1]}/{kind}" if layer else name
                datasets[known] = item

        # It follows no links, neither within the file nor out of it.
        file.visititems(collect)
        _check_layout(datasets, shapes, path, "SqueezeNet 1.1 of Keras")
        for dataset in datasets.values():
            plan = dataset.id.get_create_plist()
            if (
                dataset.is_virtual
                or plan.get_external_count()
                or plan.get_layout() != h5py.h5d.CONTIGUOUS
                or dataset.id.get_storage_size() != dataset.nbytes
            ):
                raise UnsafeFileError(
                    f"{os.fspath(path)} is refused: expected arrays stored "
                    f"as plain bytes. Received: another at {dataset.name}."
                )
        return {name: _checked(datasets[name][()], path) for name in shapes}


def _check_layout(found, expected, path, what):
    shapes = {name: tuple(array.shape) for name, array in found.items()}
    wrong = [
        f"{name}: expected {expected.get(name, 'nothing')}, received "
        f"{shapes.get(name, 'nothing')}"
        for name in [*expected, *(n for n in shapes if n not in expected)]
        if expected.get(name) != shapes.get(name)
    ]
    if wrong:
        raise LayoutError(
            f"Expected {what}. Received: {os.fspath(path)}, in which "
            f"{len(wrong)} arrays differ: {'; '.join(wrong[:4])}."
        )


def _checked(array, path) -> np.ndarray:
    if array.dtype.kind != "f" or not np.isfinite(array).all():
        raise DamagedFileError(
            f"Expected finite floating point weights in {os.fspath(path)}. "
            f"Received: {array.dtype}, or NaN or infinity. Fetch it again."
        )
    return array.astype("float32")
