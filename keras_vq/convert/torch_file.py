"""Reads tensors from files of `torch.save`, with neither torch nor pickle.

Both formats are read: the zip archive (`.pth`, `.pt`, `.ckpt` of PyTorch 1.6
and later) and the older sequence of pickles. A tensor is a view of a storage:
type, number of elements, offset, size, strides. All of these are compared
with the bytes that are really there before anything is allocated.
"""

import contextlib
import io
import os
import zipfile
from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from keras_vq.convert.errors import (
    DamagedFileError,
    LayoutError,
    UnsafeFileError,
)
from keras_vq.convert.pickle_data import BoundedStream, Foreign, Name
from keras_vq.convert.torch_tensors import (
    Container,
    Storage,
    Tensor,
    damaged,
    read_into,
)

_MAGIC = 0x1950A86A20F9469CFC6C
_MAX_PICKLE = 64 << 20
# Where training programs keep the weights among other things.
_USUAL_KEYS = ("state_dict", "model_state_dict", "model", "ema", "params")


def read_torch_file(
    path: str | os.PathLike,
    key: str | None = None,
    select: Callable[[str], bool] | None = None,
) -> dict[str, np.ndarray]:
    """Reads the tensors of a state dict.

    Nothing of the file is executed or imported. Objects of foreign classes
    beside the state dict, as PyTorch Lightning keeps them, are skipped. Only
    the tensors asked for are read, so that the optimizer's state in a
    training checkpoint costs no memory. Tensors that share a storage share
    memory; `module.` before all names is removed.

    Args:
        path: The file: a zip archive or the older format of `torch.save`.
        key: Under which key the file holds the state dict. By default it is
            the whole file or, if that has no tensors at its top, the only one
            of `"state_dict"`, `"model_state_dict"`, `"model"`, `"ema"` and
            `"params"` that has.
        select: Function of a tensor's name: whether to read it. By default
            all are read.

    Returns:
        Read-only arrays by name, in the order of the file. bfloat16 becomes
        float32; all other types stay as they are. NaN is not looked for.

    Raises:
        UnsafeFileError: If the file asks for code, or declares sizes that it
            has no bytes for.
        DamagedFileError: If it is truncated or not of this format.
        LayoutError: If there is no state dict, or none under `key`.

    Example:
    >>> read_torch_file("squeeze.pth")["lin0.model.1.weight"].shape
    (1, 64, 1, 1)
    """
    with open_torch_file(path, key, select) as (container, tensors):
        return {name: container.array(t) for name, t in tensors.items()}


@contextlib.contextmanager
def open_torch_file(
    path: str | os.PathLike,
    key: str | None = None,
    select: Callable[[str], bool] | None = None,
    preferred: str | None = None,
) -> Iterator[tuple[Container, dict[str, Tensor]]]:
    """Opens a state dict, to read its tensors one by one.

    Args:
        path: See `read_torch_file`.
        key: Likewise.
        select: Likewise.
        preferred: Which of several state dicts to take without `key`.

    Yields:
        What gives the array of a tensor, and the tensors by name.

    Raises:
        ConversionError: As `read_torch_file` does.
    """
    source = os.fspath(path)
    with open(path, "rb") as file:
        container = _container(file, source)
        state = _state_dict(container.tree, key, source, preferred)
        names = _names(state, select)
        for name, stored in names.items():
            _check_is_tensor(state[stored], name, source)
        yield container, {name: state[n] for name, n in names.items()}


def _container(file: BinaryIO, source: str) -> Container:
    start = file.read(4)
    file.seek(0)
    if start == b"PK\x03\x04":
        return _ZipFile(file, source)
    if start[:1] == b"\x80":
        return _LegacyFile(file, source)
    raise DamagedFileError(
        f"Expected a file of `torch.save`. Received: {source}, which "
        f"starts with {start!r}. Fetch it again; servers send web "
        "pages under such names."
    )


class _ZipFile(Container):
    def __init__(self, file: BinaryIO, source: str):
        super().__init__(source)
        try:
            self._zip = zipfile.ZipFile(file)
        except Exception as error:
            raise damaged(source, error) from None
        self._members = self._checked_members(file)
        pickles = [
            name
            for name in self._members
            if name == "data.pkl" or name.endswith("/data.pkl")
        ]
        if len(pickles) != 1:
            raise DamagedFileError(
                f"Expected an archive of `torch.save`, with one data.pkl. "
                f"Received: {source} with {len(pickles)} of them."
            )
        self._folder = pickles[0].removesuffix("data.pkl")
        if self._small(f"{self._folder}byteorder", 16) not in (b"", b"little"):
            raise LayoutError(
                f"{source} was written on a machine of the other byte order. "
                "Save it again on a common one."
            )
        stream = io.BytesIO(self._small(pickles[0], _MAX_PICKLE))
        self.tree = self.read_pickle(BoundedStream(stream, source))
        if stream.read(1):
            raise damaged(source, "bytes after the end of data.pkl")
        for storage in self.storages.values():
            self._check_storage(storage)

    def _checked_members(self, file: BinaryIO) -> dict:
        members = {info.filename: info for info in self._zip.infolist()}
        stored = all(
            info.compress_type == zipfile.ZIP_STORED
            and info.file_size == info.compress_size
            and not info.flag_bits & 1
            for info in members.values()
        )
        total = sum(info.file_size for info in members.values())
        if (
            not stored
            or len(members) != len(self._zip.infolist())
            or total > os.fstat(file.fileno()).st_size
        ):
            raise UnsafeFileError(
                f"{self.source} is refused: expected an archive of plain, "
                "uncompressed parts. Received: one that is compressed, "
                "encrypted, or says it holds more than its size."
            )
        return members

    def _small(self, name, limit) -> bytes:
        if name not in self._members:
            return b""
        storage = Storage("u1", name, self._members[name].file_size)
        if storage.size > limit:
            raise UnsafeFileError(
                f"{self.source} is refused: expected at most {limit} bytes "
                f"in {name[:80]}. Received: {storage.size}."
            )
        return self._read(name, storage.size).tobytes()

    def _check_storage(self, storage):
        info = self._members.get(f"{self._folder}data/{storage.key}")
        if info is None or info.file_size != storage.size:
            raise UnsafeFileError(
                f"{self.source} is refused: expected {storage.size} bytes in "
                f"data/{storage.key[:40]}. Received: "
                f"{info.file_size if info else 'no such part'}."
            )

    def read_bytes(self, storage):
        return self._read(f"{self._folder}data/{storage.key}", storage.size)

    def _read(self, name, size):
        try:
            with self._zip.open(self._members[name]) as part:
                return read_into(part, size)
        except Exception as error:
            raise damaged(self.source, error) from None


class _LegacyFile(Container):
    def __init__(self, file: BinaryIO, source: str):
        super().__init__(source)
        self._file = file
        stream = BoundedStream(file, source)
        magic, version = (self.read_pickle(stream) for _ in range(2))
        if magic != _MAGIC or version != 1001:
            raise DamagedFileError(
                f"Expected a file of `torch.save`. Received: {source}, which "
                "is a pickle of something else."
            )
        system = self.read_pickle(stream)
        if not isinstance(system, dict) or not system.get("little_endian"):
            raise LayoutError(
                f"{source} was written on a machine of the other byte order. "
                "Save it again on a common one."
            )
        self.tree = self.read_pickle(stream)
        keys = self.read_pickle(stream)
        if not isinstance(keys, list) or any(type(k) is not str for k in keys):
            raise damaged(source, "it has no list of storages")
        if sorted(keys) != sorted(self.storages):
            raise damaged(source, "its list of storages is another")
        self._find_storages(keys)

    def _find_storages(self, keys):
        end = os.fstat(self._file.fileno()).st_size
        for key in keys:
            storage = self.storages[key]
            count = int.from_bytes(self._file.read(8), "little")
            storage.position = self._file.tell()
            stop = storage.position + storage.size
            if count != storage.elements or stop > end:
                raise UnsafeFileError(
                    f"{self.source} is refused: expected {storage.elements} "
                    f"elements and their bytes. Received: {count} elements, "
                    f"{end - storage.position} bytes. Fetch it again."
                )
            self._file.seek(stop)
        if self._file.tell() != end:
            raise damaged(self.source, "bytes after its end")

    def read_bytes(self, storage):
        self._file.seek(storage.position)
        return read_into(self._file, storage.size)


def _has_tensors(value) -> bool:
    return isinstance(value, dict) and any(
        isinstance(entry, Tensor) for entry in value.values()
    )


def _state_dict(tree, key, source, preferred) -> dict:
    if isinstance(tree, Foreign | Name):
        raise UnsafeFileError(
            f"{source} is refused: expected a dict of tensors. Received: "
            f"{tree}. Ask for the `state_dict()` of it."
        )
    entries = tree if isinstance(tree, dict) else {}
    if key is None and _has_tensors(entries):
        return entries
    names = _USUAL_KEYS if key is None else (key,)
    found = [name for name in names if _has_tensors(entries.get(name))]
    if preferred in found:
        return entries[preferred]
    if len(found) == 1:
        return entries[found[0]]
    keys = [f"{name!s:.40}" for name in entries][:10]
    raise LayoutError(
        f"Expected one dict of tensors{f' under {key!r}' if key else ''} in "
        f"{source}. Received: {len(found)}; its keys are {keys}. Name the one "
        "to read with `key=`."
    )


def _names(state, select) -> dict:
    """What each tensor is called, and what it is called in the file."""
    names = {name: name for name in state if isinstance(name, str)}
    if names and all(name.startswith("module.") for name in names):
        names = {name.removeprefix("module."): name for name in names}
    return {
        name: stored
        for name, stored in names.items()
        if select is None or select(name)
    }


def _check_is_tensor(value, name, source):
    if isinstance(value, Foreign | Name):
        raise UnsafeFileError(
            f"{source} is refused: expected a tensor at {name[:80]!r}. "
            f"Received: {value}."
        )
    if not isinstance(value, Tensor):
        raise LayoutError(
            f"Expected a tensor at {name[:80]!r} in {source}. Received: "
            f"{type(value).__name__}."
        )
