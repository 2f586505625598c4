"""Where each layer's variables stand in a `.weights.h5` file.

The layout is Keras' own (a group for each layer, named by the attribute that
holds it, with its variables as `vars/0`, `vars/1`, ...), so that
`model.load_weights` reads a preset's file. It is computed from the model
alone: a file is checked against it before a byte of array data is read.

Only layers are followed. Optimizers, metrics and losses, which Keras puts
into the same file, are state of a training run and no part of a preset. A
model's optional parts have files of their own.
"""

import re
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_vq.presets.errors import PresetError
from keras_vq.presets.parts import model_parts


def layer_groups(model: keras.Model) -> list[tuple[str, keras.layers.Layer]]:
    """The layers of a model with their group in the file, in Keras' order."""
    found: list[tuple[str, keras.layers.Layer]] = []
    parts = {id(part) for part in model_parts(model).values()}
    _visit_layer(model, "", found, parts)
    return found


def own_variables(layer: keras.layers.Layer, root: bool) -> dict[str, Any]:
    """What a layer itself stores, by dataset name: variables or arrays.

    The model's own override of `save_own_variables` is passed over, and the
    variables in its `training_state` left out: they are what a training run
    needs to go on, which is no part of a preset.
    """
    store: dict[str, Any] = {}
    if not root:
        layer.save_own_variables(store)
        return store
    keras.layers.Layer.save_own_variables(layer, store)
    state = _training_state(layer)
    return {key: v for key, v in store.items() if id(v) not in state}


def assign_variables(
    layer: keras.layers.Layer,
    root: bool,
    store: dict[str, Any],
    arrays: dict[str, np.ndarray],
) -> None:
    """The inverse of `own_variables`, whose result is `store`."""
    if not root:
        layer.load_own_variables(arrays)
        return
    for key, variable in store.items():
        variable.assign(arrays[key])


def dataset_groups(
    model: keras.Model,
) -> list[tuple[str, keras.layers.Layer, dict[str, Any]]]:
    """Everything to store: (group, layer, {dataset name: variable}).

    Raises:
        PresetError: If the model has weights that no layer would store.
    """
    if not model.built:
        raise PresetError(
            "Expected a built model: one whose variables exist once it is "
            "constructed. Call the model on some images first."
        )
    groups = []
    covered = _training_state(model)
    for part in model_parts(model).values():
        covered.update(id(weight) for weight in part.weights)
    for path, layer in layer_groups(model):
        store = own_variables(layer, root=layer is model)
        if not store:
            continue
        groups.append((f"{path}/vars" if path else "vars", layer, store))
        for value in store.values():
            if isinstance(value, keras.Variable):
                covered.add(id(value))
            else:
                # The layer converts its variables itself (quantized layers
                # do): it answers for all of them.
                covered.update(id(weight) for weight in layer.weights)
    lost = [w.path for w in model.weights if id(w) not in covered]
    if lost:
        raise PresetError(
            "These weights belong to no attribute of a layer, so that a "
            f"preset would lose them. Received: {lost[:5]}. Hold the layers "
            "that own them in attributes of the model."
        )
    return groups


def _training_state(model: keras.Model) -> set[int]:
    return {id(v) for v in getattr(model, "training_state", ())}


def _visit_layer(layer, path, found, visited):
    if id(layer) in visited:
        return
    visited.add(id(layer))
    found.append((path, layer))
    for name, child in _attributes(layer):
        child_path = f"{path}/{name}" if path else name
        if isinstance(child, keras.layers.Layer):
            _visit_layer(child, child_path, found, visited)
        elif isinstance(child, (list, dict, tuple)):
            _visit_container(child, child_path, found, visited, set())


def _visit_container(container, path, found, visited, containers):
    if id(container) in containers:
        return
    containers.add(id(container))
    items = container.values() if isinstance(container, dict) else container
    used: dict[str, int] = {}
    for item in list(items):
        if isinstance(item, keras.layers.Layer):
            name = _unique(_snake_case(type(item).__name__), used)
            _visit_layer(item, f"{path}/{name}", found, visited)
        elif isinstance(item, (list, dict, tuple)):
            name = _unique("container", used)
            child_path = f"{path}/{name}"
            _visit_container(item, child_path, found, visited, containers)


def _attributes(layer: keras.layers.Layer) -> Iterator[tuple[str, Any]]:
    """Attributes that may hold sublayers, public ones first, by name."""
    skipped = set(dir(keras.layers.Layer()))
    if isinstance(layer, keras.Sequential):
        skipped.add("_functional")
        yield "layers", layer.layers
    elif isinstance(layer, keras.Model) and hasattr(layer, "operations"):
        skipped.update(("operations", "_operations"))
        yield "layers", layer.layers
    names = (n for n in dir(layer) if n not in skipped)
    for name in sorted(names, key=lambda n: f"~{n}" if n[0] == "_" else n):
        try:
            yield name, getattr(layer, name)
        except Exception:  # A property that does not apply to this model.
            continue


def _unique(name: str, used: dict[str, int]) -> str:
    if name in used:
        used[name] += 1
        return f"{name}_{used[name]}"
    used[name] = 0
    return name


def _snake_case(name: str) -> str:
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
