"""Write and read weight files, without trusting the file.

Keras checks shapes after it has read an array; a file of a few kilobytes can
make it allocate gigabytes. Here the headers of all datasets are compared with
the model first, and only a file that has exactly the expected datasets, each
stored as plain bytes, is read.
"""

import os
import pathlib
from typing import Any, BinaryIO

import h5py
import keras
import numpy as np

from keras_vq.presets.errors import (
    DamagedPresetError,
    PresetError,
    UnsafePresetError,
)
from keras_vq.presets.layout import assign_variables, dataset_groups

# What a variable of this dtype may be stored as. Every conversion among
# them towards the variable of a float32 model is exact.
_STORED = {
    "float64": ("float64", "float32", "float16"),
    "float32": ("float32", "float16"),
    "float16": ("float32", "float16"),
    "bfloat16": ("float32", "float16"),
}


def write_weights(
    model: keras.Model, path: pathlib.Path, float16: bool = False
) -> None:
    """Write a model's weights, and nothing of the training, to a new file."""
    with open(path, "xb") as stream:
        with h5py.File(stream, "w") as file:
            for group_path, layer, store in dataset_groups(model):
                group = file.create_group(group_path)
                group.attrs["name"] = layer.name
                for name, value in store.items():
                    label = f"{layer.path or layer.name}/{name}"
                    array = _to_stored(value, float16, label)
                    group.create_dataset(name, data=array)
        stream.flush()
        os.fsync(stream.fileno())


def read_weights(model: keras.Model, file: BinaryIO, name: str) -> None:
    """Load a weight file into a built model.

    Args:
        model: The model, or a part of it; its variables say what the file
            must hold.
        file: The file, opened in binary mode.
        name: What to call the file in an error.

    Raises:
        DamagedPresetError: If it is no HDF5 file or holds NaN or infinity.
        UnsafePresetError: If it holds links or data stored elsewhere.
        PresetError: If it does not fit the model.
    """
    try:
        with h5py.File(file, "r") as h5:
            groups = dataset_groups(model)
            check_headers(h5, groups, name)
            for path, layer, store in groups:
                arrays = {
                    key: _read(h5[f"{path}/{key}"], value, name)
                    for key, value in store.items()
                }
                assign_variables(layer, layer is model, store, arrays)
    except PresetError:
        raise
    # What h5py raises depends on where in the file the damage is.
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DamagedPresetError(
            f"{name} cannot be read as a weight file ({error}). "
            "Fetch or save the preset again."
        ) from error


def check_headers(h5: h5py.File, groups: list, name: str) -> None:
    """Compare every dataset's header with the model, reading no data."""
    expected: dict[str, Any] = {}
    for path, _, store in groups:
        for key, value in store.items():
            expected[f"{path}/{key}"] = value
    inner = {""}
    for path in expected:
        parts = path.split("/")[:-1]
        inner.update("/".join(parts[: i + 1]) for i in range(len(parts)))
    seen: set[str] = set()
    # Shorter paths first, so that a group is known before it is entered.
    for path in sorted(inner, key=len):
        _check_group(h5, path, expected, inner, seen, name)
    missing = sorted(set(expected) - seen)
    if missing:
        raise PresetError(
            f"{name} lacks {len(missing)} of the {len(expected)} arrays of "
            f"the model. Missing: {missing[:5]}. Arguments that add weights, "
            "such as a loss with a learned scale, need `load_weights=False`."
        )


def _check_group(h5, path, expected, inner, seen, name):
    if path and path not in seen:
        return
    group = h5[path] if path else h5
    for key in group:
        child = f"{path}/{key}" if path else key
        if not _is_hard_link(group, key):
            raise UnsafePresetError(
                f"{name} holds a link at '{child}'. A weight file holds its "
                "own arrays only. Do not use it."
            )
        if child in inner and _class_of(group, key) is h5py.Group:
            seen.add(child)
        elif child in expected and _class_of(group, key) is h5py.Dataset:
            _check_dataset(group[key], expected[child], child, name)
            seen.add(child)
        else:
            raise PresetError(
                f"{name} has something that the model has not, at '{child}'. "
                "It belongs to another model or another version of it."
            )


def _is_hard_link(group: h5py.Group, key: str) -> bool:
    try:
        return isinstance(group.get(key, getlink=True), h5py.HardLink)
    except TypeError:  # Link types of somebody's HDF5 plug-in.
        return False


def _class_of(group: h5py.Group, key: str) -> type:
    return group.get(key, getclass=True)


def _check_dataset(dataset: h5py.Dataset, value, path, name):
    plan = dataset.id.get_create_plist()
    if dataset.is_virtual or plan.get_external_count():
        raise UnsafePresetError(
            f"{name} keeps the data of '{path}' in another file. A weight "
            "file holds its own arrays only. Do not use it."
        )
    shape, stored = dataset.shape, dataset.dtype
    dtype = keras.backend.standardize_dtype(value.dtype)
    if shape != tuple(value.shape):
        raise PresetError(
            f"{name} does not fit the model at '{path}'. "
            f"Expected shape: {tuple(value.shape)}. Received: {shape}. "
            "Arguments that change shapes need `load_weights=False`."
        )
    if stored.name not in _STORED.get(dtype, (dtype,)):
        raise PresetError(
            f"{name} does not fit the model at '{path}'. Expected dtype: "
            f"{' or '.join(_STORED.get(dtype, (dtype,)))}. "
            f"Received: {stored}."
        )
    # Chunks may be larger than the array and filters may unpack to more than
    # the file holds; arrays without data would silently read as zeros.
    if (
        plan.get_layout() != h5py.h5d.CONTIGUOUS
        or plan.get_nfilters()
        or dataset.id.get_storage_size() != dataset.nbytes
    ):
        raise UnsafePresetError(
            f"{name} does not store '{path}' as plain contiguous bytes. "
            f"Expected {dataset.nbytes} bytes, no chunks, no compression."
        )


def _read(dataset: h5py.Dataset, value, name: str) -> np.ndarray:
    array = dataset[()]
    if array.dtype.kind != "f":
        return array
    dtype = keras.backend.standardize_dtype(value.dtype)
    if not np.isfinite(array).all():
        raise DamagedPresetError(
            f"{name} holds NaN or infinity at '{dataset.name}'. "
            "Fetch or save the preset again."
        )
    if dtype == "float16" and np.abs(array).max(initial=0) > 65504:
        raise PresetError(
            f"{name} holds values at '{dataset.name}' that float16 cannot "
            "hold. Load it with dtype='float32' or 'mixed_float16'."
        )
    return array if dtype == "bfloat16" else array.astype(dtype, copy=False)


def _to_stored(value: Any, float16: bool, label: str) -> np.ndarray:
    array = keras.ops.convert_to_numpy(value)
    if keras.backend.standardize_dtype(array.dtype) == "bfloat16":
        array = array.astype("float32")
    if array.dtype.kind != "f":
        return array
    if not np.isfinite(array).all():
        raise PresetError(
            f"Expected finite weights. Received: NaN or infinity in "
            f"'{label}'. A preset of them would be refused when loaded."
        )
    if not float16:
        return array
    if np.abs(array).max(initial=0) > np.finfo(np.float16).max:
        raise PresetError(
            f"'{label}' holds values beyond float16's largest number. "
            f"Received: {np.abs(array).max()}, expected at most 65504. "
            "Save with `float16=False`."
        )
    return array.astype("float16")
