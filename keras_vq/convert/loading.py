"""Models from files of other programs: recognised, compared, filled.

Everything is compared by names and shapes before a model is made or a value
read; what does not fit is one error that lists the differences.
"""

import dataclasses
import os
import re
from typing import Any

import keras

from keras_vq.convert.errors import LayoutError, UnsafeFileError
from keras_vq.convert.layouts import LAYOUTS, Layout, Plan
from keras_vq.convert.rows import variables_of
from keras_vq.convert.weight_file import WeightFile, open_weights
from keras_vq.presets.config import (
    apply_overrides,
    build_model,
    check_class,
    set_dtype,
)
from keras_vq.presets.parts import model_parts

_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Description:
    """What a file was recognised as.

    Attributes:
        layout: Short name of the layout.
        title: Whose files are so.
        tensors: Number of tensors in the file.
        used: How many of them the model has a variable for.
        elsewhere: How many a part of it reads when it is trained.
    """

    layout: str
    title: str
    tensors: int
    used: int
    elsewhere: int


def describe(path: str | os.PathLike) -> Description:
    """What a file of another program holds; no model is made.

    Args:
        path: As for `load_published`.

    Raises:
        ConversionError: If it is of no known layout.
    """
    with open_weights(path) as file:
        layout, plan = _read_plan(file)
        used = sum(row.name is not None for row in plan.rows)
        return Description(
            layout.name,
            layout.title,
            len(file.shapes),
            used,
            len(plan.elsewhere),
        )


def load_published(
    cls: type,
    path: str | os.PathLike,
    load_weights: bool = True,
    dtype: Any = None,
    load_parts: bool = True,
    overrides: dict | None = None,
) -> keras.Model:
    """Builds the model that a file of another program holds.

    Nothing in the file is executed, and neither torch nor diffusers is
    needed.

    Args:
        cls: The class that asks, which is the model's or a base of it.
        path: A file of `torch.save` or of safetensors, or a directory of
            diffusers.
        load_weights: Whether to load the weights, or to start afresh.
        dtype: Optional dtype policy of the model.
        load_parts: Whether to load the optional parts that the file has.
        overrides: Arguments of the model to change.

    Returns:
        The model, not compiled.

    Raises:
        ConversionError: If the file is of no known layout, damaged or not to
            be trusted, or does not tell an argument that must be given.
        PresetError: If it holds a model of another class, or an override is
            no argument of it.
    """
    overrides = overrides or {}
    with open_weights(path) as file:
        _, plan = _read_plan(file)
        target = keras.saving.get_registered_object(plan.model)
        check_class(target, cls, path)
        _check_decided(plan, target, path, overrides)
        arguments = apply_overrides(target, plan.arguments, overrides)
        if dtype is not None:
            arguments = set_dtype(arguments, dtype)
        model = build_model(target, arguments, os.fspath(path))
        if not load_weights:
            return model
        parts = set(model_parts(model))
        given = set(plan.parts) & (set(overrides) if load_parts else parts)
        loaded = _fill(model, plan, file, given)
    if fresh := parts - loaded:
        model.fresh_parts = tuple(sorted(fresh))
    return model


def find_layout(file: WeightFile) -> Layout:
    """The layout of a file.

    Raises:
        LayoutError: If it is none of those that are known.
    """
    for layout in LAYOUTS:
        if layout.recognises(file):
            return layout
    known = ", ".join(layout.title for layout in LAYOUTS)
    names = [name[:60] for name in list(file.shapes)[:6]]
    raise LayoutError(
        f"Expected weights of one of these: {known}. Received: {file.path} "
        f"with {len(file.shapes)} tensors, such as {names}."
    )


def _read_plan(file) -> tuple[Layout, Plan]:
    layout = find_layout(file)
    plan = layout.plan(file)
    _check_names(layout, plan, file)
    _check_sizes(plan, file)
    return layout, plan


def _check_names(layout, plan, file):
    rows = {row.name: row.shape for row in plan.rows if row.name is not None}
    expected = {**rows, **plan.elsewhere}
    unused = re.compile(plan.unused)
    differences = [
        f"{name}: expected {shape}, received {file.shapes.get(name, 'none')}"
        for name, shape in expected.items()
        if file.shapes.get(name) != shape
    ]
    differences += [
        f"{name[:80]}: expected none, received {shape}"
        for name, shape in file.shapes.items()
        if name not in expected and not unused.fullmatch(name)
    ]
    if differences:
        more = len(differences) - _SHOWN
        raise LayoutError(
            f"Expected the tensors of {layout.title}. Received: {file.path}, "
            f"in which {len(differences)} of them differ: "
            + "; ".join(differences[:_SHOWN])
            + (f"; and {more} more." if more > 0 else ".")
        )


def _check_sizes(plan, file):
    """Tensors may share bytes; a small file must not become a huge model."""
    names = [row.name for row in plan.rows if row.name is not None]
    needed, present = sum(file.sizes[n] for n in names), file.path.stat()
    if needed > present.st_size:
        raise UnsafeFileError(
            f"{file.path} is refused: expected a tensor to have its own "
            f"bytes. Received: tensors of {needed} bytes in a file of "
            f"{present.st_size}."
        )


def _check_decided(plan, target, path, overrides):
    for name, meaning in plan.undecided.items():
        if name not in overrides:
            raise LayoutError(
                f"{path} does not tell one argument of its model. Expected: "
                f"`{target.__name__}.from_preset(..., {name}=...)`, {meaning}."
            )


def _fill(model, plan, file, given) -> set[str]:
    """Fills all but the given parts; returns the names of those filled."""
    parts = set(model_parts(model))
    # A part may be left out of the model by its argument.
    skipped = given | (set(plan.parts) - parts)
    rows = [row for row in plan.rows if row.root not in skipped]
    loaded = {row.root for row in rows} & parts
    pairs = list(variables_of(model, rows))
    _check_complete(model, pairs, parts - loaded)
    for row, variable in pairs:
        if row.name is None:
            variable.assign(keras.ops.full(row.shape, row.value))
        else:
            variable.assign(row.transform(file.read(row.name)))
    return loaded


def _check_complete(model, pairs, fresh_parts):
    """Every variable is filled but those of training and of fresh parts."""
    known = {id(variable) for _, variable in pairs}
    known |= {id(variable) for variable in model.training_state}
    for name in fresh_parts:
        known |= {id(v) for v in model_parts(model)[name].weights}
    if missing := [v.path for v in model.weights if id(v) not in known]:
        raise LayoutError(
            f"The file has nothing for {len(missing)} variables of the "
            f"model: {missing[:8]}. Arguments that add weights need "
            "`load_weights=False`."
        )
