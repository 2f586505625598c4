"""Files of weights of every format: what is in them, and tensors one by one.

Nothing here knows what a tensor means; that is for the layouts.
"""

import contextlib
import math
import os
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from keras_vq.convert.errors import (
    ConversionError,
    DamagedFileError,
    LayoutError,
    UnavailableFileError,
)
from keras_vq.convert.flax_file import is_flax, open_flax_file
from keras_vq.convert.torch_file import open_torch_file

# What diffusers writes into the directory of a model.
CONFIG_FILE = "config.json"
DIFFUSERS_FILES = (
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
)
# More levels, blocks or layers than any network has; each costs time.
_MAX_COUNT = 64
_STEM, _LENGTH, _DIRECTION = "weight", "weight_g", "weight_v"


class WeightFile:
    """Names and shapes of the tensors of a file, and their values on request.

    A pair of weight normalization (`weight_g`, `weight_v`) is shown as the
    one `weight` that it stands for.

    Args:
        path: The file that holds the tensors.
        shapes: Shape of each tensor by name.
        sizes: Number of bytes of each, by name.
        read: Function of a name that reads the tensor.
        is_torch: Whether it is a file of `torch.save`.

    Attributes:
        path: The file that holds the tensors.
        shapes: Shape of each tensor by name.
        sizes: Number of bytes of each tensor in the file, by name.
        config: What a config.json beside it says, or an empty dict.
        is_torch: Whether it is a file of `torch.save`.
    """

    def __init__(
        self,
        path: pathlib.Path,
        shapes: dict[str, tuple],
        sizes: dict[str, int],
        read: Callable[[str], np.ndarray],
        is_torch: bool,
    ):
        self.path = path
        self.shapes = dict(shapes)
        self.sizes = dict(sizes)
        self.config: dict = {}
        self.is_torch = is_torch
        self._read = read
        self._pairs: dict[str, tuple] = {}
        for name in shapes:
            if name.endswith(_LENGTH):
                self._merge(name.removesuffix(_LENGTH))

    def _merge(self, prefix):
        stem, *pair = (prefix + x for x in (_STEM, _LENGTH, _DIRECTION))
        length, direction = (self.shapes.get(name, ()) for name in pair)
        lengths = (*direction[:1], *(1 for _ in direction[1:]))
        # Other pairs stay as they are, and no layout knows their names.
        if direction and length == lengths and stem not in self.shapes:
            for attribute in (self.shapes, self.sizes):
                values = [attribute.pop(name) for name in pair]
                attribute[stem] = values[1]
            self._pairs[stem] = tuple(pair)

    def shape(self, name: str, rank: int) -> tuple:
        """The shape of a tensor that must be there.

        Raises:
            LayoutError: If it is not, or has another rank, or no elements.
        """
        shape = self.shapes.get(name, ())
        if len(shape) != rank or not math.prod(shape):
            raise LayoutError(
                f"Expected a tensor {name!r} with {rank} axes in {self.path}. "
                f"Received: {self.shapes.get(name, 'none of that name')}."
            )
        return shape

    def count(self, name: Callable[[int], str]) -> int:
        """How many tensors are called `name(0)`, `name(1)` and so on.

        Raises:
            LayoutError: If they are more than any network has.
        """
        count = 0
        while name(count) in self.shapes:
            count += 1
            if count > _MAX_COUNT:
                raise LayoutError(
                    f"Expected at most {_MAX_COUNT} tensors like {name(0)!r} "
                    f"in {self.path}. Received: more."
                )
        return count

    def read(self, name: str) -> np.ndarray:
        """Reads one tensor.

        Args:
            name: One of `shapes`.

        Returns:
            float32 array, perhaps read-only.

        Raises:
            DamagedFileError: If it is of integers, or holds NaN or infinity.
        """
        if name not in self._pairs:
            return self._finite(name, self._read(name))
        length, vectors = (
            self._finite(part, self._read(part)).astype("float64")
            for part in self._pairs[name]
        )
        axes = tuple(range(1, vectors.ndim))
        norms = np.sqrt(np.square(vectors).sum(axes, keepdims=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            return self._finite(name, length * (vectors / norms))

    def _finite(self, name, array):
        if array.dtype.name == "bfloat16":
            array = array.astype("float32")
        if array.dtype.kind != "f" or not np.isfinite(array).all():
            raise DamagedFileError(
                f"Expected finite floating point weights in {self.path}. "
                f"Received: {array.dtype}, or NaN or infinity, at "
                f"{name[:80]!r}. Fetch it again."
            )
        with np.errstate(over="ignore"):
            array = array.astype("float32", copy=False)
        if not np.isfinite(array).all():
            raise DamagedFileError(
                f"{self.path} holds values at {name[:80]!r} that float32 "
                "cannot hold. Fetch it again."
            )
        return array


@contextlib.contextmanager
def open_weights(path: str | os.PathLike) -> Iterator[WeightFile]:
    """Opens a file of weights, or a directory of diffusers.

    Args:
        path: A file of `torch.save`, a safetensors file, one of Flax, or a
            directory with config.json and one of the former, as diffusers
            writes it.

    Yields:
        The `WeightFile`.

    Raises:
        ConversionError: If it is none of these, damaged, or asks for code.
    """
    path = pathlib.Path(path)
    config = {}
    if path.is_dir():
        path, config = _open_directory(path)
    if not path.is_file():
        raise UnavailableFileError(
            f"Expected a file of weights. Received: {path}, which is none."
        )
    with open(path, "rb") as file:
        start = file.read(9)
    opened = _open_torch
    if start[8:] == b"{":
        opened = _open_safetensors
    elif start and is_flax(start):
        opened = _open_flax
    with opened(path) as file:
        file.config = config
        yield file


def is_diffusers_directory(path: pathlib.Path) -> bool:
    """Whether a directory looks like a model of diffusers."""
    return (path / CONFIG_FILE).is_file() and any(
        (path / name).is_file() for name in DIFFUSERS_FILES
    )


def _open_directory(directory) -> tuple[pathlib.Path, dict]:
    from keras_vq.presets.manifest import read_json

    if not is_diffusers_directory(directory):
        raise LayoutError(
            f"Expected a directory with {CONFIG_FILE} and "
            f"{' or '.join(DIFFUSERS_FILES)}. Received: {directory}."
        )
    files = [directory / name for name in DIFFUSERS_FILES]
    path = next(file for file in files if file.is_file())
    return path, read_json(directory / CONFIG_FILE)


@contextlib.contextmanager
def _open_torch(path):
    # Programs that keep averaged weights beside the last ones use these.
    with open_torch_file(path, preferred="ema") as (container, tensors):

        def read(name):
            array = container.array(tensors[name])
            container.forget()
            return array

        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        sizes = {name: container.size(t) for name, t in tensors.items()}
        yield WeightFile(path, shapes, sizes, read, is_torch=True)


_WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}


@contextlib.contextmanager
def _open_safetensors(path):
    try:
        import safetensors
    except ImportError as error:
        raise UnavailableFileError(
            f"Reading {path} needs safetensors. Install it with `pip install "
            '"keras-vq[hub]"`.'
        ) from error
    try:
        with safetensors.safe_open(path, framework="np") as file:
            shapes, sizes = {}, {}
            for name in file.keys():
                header = file.get_slice(name)
                shapes[name] = tuple(header.get_shape())
                # Of other types, which are refused when they are read.
                width = _WIDTHS.get(header.get_dtype(), 8)
                sizes[name] = math.prod(shapes[name]) * width
            yield WeightFile(
                path, shapes, sizes, file.get_tensor, is_torch=False
            )
    except ConversionError:
        raise
    except safetensors.SafetensorError as error:
        raise DamagedFileError(
            f"{path} is damaged: {error!s:.200}. Fetch it again."
        ) from error


@contextlib.contextmanager
def _open_flax(path):
    """Under PyTorch's names for kernels and scales, and with its axes."""
    with open_flax_file(path) as file:
        names, shapes, sizes = {}, {}, {}
        for name, array in file.arrays.items():
            known, axes = _as_torch(name, len(array.shape))
            if known in names:
                raise LayoutError(
                    f"Expected one array for {known!r} in {path}. Received: "
                    f"{names[known][0]!r} and {name!r}."
                )
            names[known] = name, axes
            shapes[known] = tuple(array.shape[axis] for axis in axes)
            sizes[known] = array.size

        def read(known):
            name, axes = names[known]
            return file.read(name).transpose(axes)

        yield WeightFile(path, shapes, sizes, read, is_torch=False)


def _as_torch(name, rank) -> tuple[str, tuple]:
    """Flax' name of an array, and its axes, as PyTorch has them."""
    *parts, leaf = name.split("/")
    axes = tuple(range(rank))
    if leaf == "kernel" and rank == 4:
        axes = (3, 2, 0, 1)
    if leaf in ("kernel", "scale", "embedding"):
        leaf = "weight"
    return ".".join((*parts, leaf)), axes
