"""Tensors as PyTorch stores them: views of storages, in elements."""

import dataclasses
import math
from typing import Any

import numpy as np

from keras_vq.convert.errors import DamagedFileError, UnsafeFileError
from keras_vq.convert.pickle_data import Name, read_pickle_data

_MAX_AXES = 16
_CHUNK = 1 << 20
_BFLOAT16 = "bfloat16"
_DTYPES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": _BFLOAT16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


@dataclasses.dataclass(eq=False)
class Storage:
    """A run of elements in the file."""

    dtype: str
    key: str
    elements: int
    position: int = -1

    @property
    def size(self) -> int:
        """Number of bytes in the file."""
        width = 2 if self.dtype == _BFLOAT16 else np.dtype(self.dtype).itemsize
        return self.elements * width


@dataclasses.dataclass(eq=False)
class Part:
    """A part of a storage, which tensors see as the whole."""

    storage: Storage
    start: int
    elements: int


@dataclasses.dataclass(eq=False)
class Tensor:
    """A view of a storage, all in elements."""

    part: Part
    offset: int
    shape: tuple
    strides: tuple


class Container:
    """The pickled tree of a file, and its storages.

    Args:
        source: str. What to call the file in an error.
    """

    tree: Any

    def __init__(self, source):
        self.source = source
        self.storages: dict[str, Storage] = {}
        self._arrays: dict[str, np.ndarray] = {}
        utils = "torch._utils"
        self._builders = {
            Name("collections", "OrderedDict"): _ordered_dict,
            Name(utils, "_rebuild_tensor"): self._rebuild_tensor,
            Name(utils, "_rebuild_tensor_v2"): self._rebuild_tensor,
            Name(utils, "_rebuild_parameter"): _rebuild_parameter,
            Name(utils, "_rebuild_parameter_with_state"): _rebuild_parameter,
            Name("torch", "Size"): tuple,
        }

    def read_pickle(self, stream):
        """Reads one pickle, with tensors as `Tensor`."""
        return read_pickle_data(
            stream, self.source, self._builders, self._rebuild_storage
        )

    def read_bytes(self, storage: Storage) -> np.ndarray:
        """Returns the bytes of a storage."""
        raise NotImplementedError

    def array(self, tensor: Tensor) -> np.ndarray:
        """Returns a read-only view of the tensor's storage."""
        flat = self._flat(tensor.part.storage)
        width = flat.itemsize
        view = np.ndarray(
            tensor.shape,
            flat.dtype,
            buffer=flat,
            offset=(tensor.part.start + tensor.offset) * width
            if math.prod(tensor.shape)
            else 0,
            strides=[stride * width for stride in tensor.strides],
        )
        view.flags.writeable = False
        return view

    def size(self, tensor: Tensor) -> int:
        """Number of bytes that the tensor's elements take in the file."""
        storage = tensor.part.storage
        width = storage.size // max(storage.elements, 1)
        return math.prod(tensor.shape) * width

    def forget(self):
        """Lets go of the storages that were read."""
        self._arrays.clear()

    def _flat(self, storage):
        if storage.key not in self._arrays:
            raw = self.read_bytes(storage)
            if storage.dtype == _BFLOAT16:
                # The upper half of a float32.
                wide = raw.view("<u2").astype("<u4")
                wide <<= 16
                flat = wide.view("<f4")
            elif storage.dtype == "?":
                flat = raw != 0
            else:
                flat = raw.view(storage.dtype)
            self._arrays[storage.key] = flat
        return self._arrays[storage.key]

    def _rebuild_storage(self, pid):
        kind, type_, key, _, elements, *view = pid
        if (
            kind != "storage"
            or not isinstance(type_, Name)
            or not isinstance(key, str)
        ):
            raise ValueError("a storage that is none")
        known = type_.module in ("torch", "torch.cuda")
        if not known or type_.name not in _DTYPES:
            raise UnsafeFileError(
                f"{self.source} is refused: expected storages of real or "
                f"integer numbers. Received: {type_}."
            )
        dtype = _DTYPES[type_.name]
        _check_sizes(elements)
        storage = self.storages.setdefault(key, Storage(dtype, key, elements))
        if (storage.dtype, storage.elements) != (dtype, elements):
            raise ValueError("one storage with two types or sizes")
        if not view or view[0] is None:
            return Part(storage, 0, elements)
        _, start, length = view[0]
        _check_sizes(start, length)
        if start + length > elements:
            self._beyond()
        return Part(storage, start, length)

    def _rebuild_tensor(self, part, offset, shape, strides, *rest):
        if len(rest) > 2 and rest[2]:
            raise ValueError("a tensor with conjugate or negative bit")
        if not isinstance(part, Part) or len(shape) != len(strides):
            raise ValueError("a tensor without storage or strides")
        if len(shape) > _MAX_AXES:
            raise ValueError("a tensor with too many axes")
        _check_sizes(offset, *shape, *strides)
        size = math.prod(shape)
        last = offset + sum(
            (n - 1) * step for n, step in zip(shape, strides, strict=True)
        )
        # A tensor larger than its storage repeats it: a few bytes could
        # stand for gigabytes.
        if size and (last >= part.elements or size > part.elements):
            self._beyond()
        return Tensor(part, offset, tuple(shape), tuple(strides))

    def _beyond(self):
        raise UnsafeFileError(
            f"{self.source} is refused: expected tensors within their "
            "storages. Received: one that is larger. Fetch it again."
        )


def read_into(file, size) -> np.ndarray:
    """Reads `size` bytes without a second copy of them."""
    array = np.empty(size, "u1")
    done = 0
    while done < size:
        chunk = file.read(min(_CHUNK, size - done))
        if not chunk:
            raise EOFError("the file is shorter than it says")
        array[done : done + len(chunk)] = np.frombuffer(chunk, "u1")
        done += len(chunk)
    return array


def _ordered_dict(pairs=()):
    """Python 2 gave the entries as a list, Python 3 sets them later."""
    result = {}
    for name, value in pairs:
        if isinstance(name, str | int | Name):
            result[name] = value
    return result


def _rebuild_parameter(data, *_):
    return data


def _check_sizes(*values):
    for value in values:
        if type(value) is not int or not 0 <= value < 1 << 62:
            raise ValueError("a size that is no number of elements")


def damaged(source: str, reason) -> DamagedFileError:
    """Returns the error that a file is not what was written."""
    return DamagedFileError(
        f"{source} is damaged: {reason!s:.200}. Fetch it again."
    )
