"""config.json: a description of a model that can only ever be data.

Keras builds objects from such a file, and the road there has been abused
before (Lambda layers, functions named by module). What may be named is
therefore decided here, before Keras sees the file: the classes that this
package registers, those that the running program has registered itself, and
Keras' own layers with what they are made of.
"""

import difflib
import inspect
from collections.abc import Iterable
from typing import Any

import keras

from keras_vq.presets.errors import (
    DamagedPresetError,
    PresetError,
    UnsafePresetError,
)

# Modules of Keras that configurations of layers name, and only those.
_KERAS_MODULES = {
    "keras",
    "keras.activations",
    "keras.constraints",
    "keras.dtype_policies",
    "keras.initializers",
    "keras.layers",
    "keras.losses",
    "keras.quantizers",
    "keras.regularizers",
    "keras.src.models.functional",
    "keras.src.models.sequential",
}
_KERAS_OPERATIONS = "keras.src.ops."

# Keras layers that run code, open files or call another framework.
_REFUSED_CLASSES = {
    "Lambda",
    "TFSMLayer",
    "TorchModuleWrapper",
    "JaxLayer",
    "FlaxLayer",
    "StringLookup",
    "IntegerLookup",
    "TextVectorization",
    "FeatureSpace",
}

# Keras' marks for values that JSON has no form for.
_PLAIN_VALUES = {
    "__keras_tensor__",
    "__tensor__",
    "__numpy__",
    "__bytes__",
    "__ellipsis__",
    "__slice__",
}


def model_config(model: keras.Model, parts: Iterable[str] = ()) -> dict:
    """The content of config.json for a model.

    Args:
        model: The model.
        parts: Names of the optional parts that the preset holds.

    Raises:
        PresetError: If a class is not registered, so that the preset could
            not be loaded again.
    """
    config = keras.saving.serialize_keras_object(model)
    config.pop("build_config", None)
    config = without_local_paths(without_training(config))
    # Which layers were frozen belongs to the training too.
    config["config"].pop("frozen_layers", None)
    changed = getattr(model, "preset_config", None)
    if callable(changed):
        config["config"].update(changed(parts))
    check_config(config, source=f"The configuration of {model.name}")
    registered_class(config, source=f"The configuration of {model.name}")
    return config


def without_training(node: Any) -> Any:
    """A copy without the `compile_config` of the model and its parts."""
    if isinstance(node, dict):
        return {
            key: without_training(value)
            for key, value in node.items()
            if not (key == "compile_config" and "class_name" in node)
        }
    if isinstance(node, (list, tuple)):
        return [without_training(value) for value in node]
    return node


def without_local_paths(node: Any) -> Any:
    """A copy without the arguments that name files of one machine.

    A registered class says which ones those are by `local_paths`. Whoever
    loads the preset has the files elsewhere, and nobody else's preset makes
    this program open a file.
    """
    if isinstance(node, dict):
        node = {key: without_local_paths(value) for key, value in node.items()}
        paths = getattr(
            _registered(node.get("registered_name")), "local_paths", ()
        )
        if paths and isinstance(node.get("config"), dict):
            inner = node["config"].items()
            node["config"] = {k: v for k, v in inner if k not in paths}
        return node
    if isinstance(node, (list, tuple)):
        return [without_local_paths(value) for value in node]
    return node


def check_config(node: Any, source: str) -> None:
    """Refuse a configuration that names anything but known classes.

    Args:
        node: The content of config.json, or a part of it.
        source: What to call it in an error.

    Raises:
        UnsafePresetError: If it names a class or function that a preset
            may not name.
    """
    if isinstance(node, (list, tuple)):
        for value in node:
            check_config(value, source)
    if not isinstance(node, dict):
        return
    if "class_name" in node and not _is_allowed(node):
        named = ".".join(
            str(node[key])
            for key in ("module", "class_name")
            if node.get(key) is not None
        )
        raise UnsafePresetError(
            f"{source} names '{named}', which a preset may not name. "
            "Expected classes of keras_vq, Keras layers that neither run "
            "code nor open files, or classes that your program registers "
            "with `@keras.saving.register_keras_serializable(package=...)` "
            "before loading. Received: "
            f"registered_name={node.get('registered_name')!r}."
        )
    for value in node.values():
        check_config(value, source)


def registered_class(config: dict, source: str) -> type:
    """The model class that a config.json names at its top."""
    name = config.get("registered_name")
    found = _registered(name)
    if found is None:
        raise PresetError(
            f"{source} names the class {name!r}, which is not registered. "
            "Expected a model of keras_vq or a class that your program "
            "registers with `@keras.saving.register_keras_serializable("
            "package=...)`. A newer keras_vq may have it: "
            "`pip install -U keras-vq`."
        )
    if not (isinstance(found, type) and issubclass(found, keras.Model)):
        raise PresetError(
            f"{source} describes no model. Expected: a keras.Model. "
            f"Received: {name!r}."
        )
    if not isinstance(config.get("config"), dict):
        raise DamagedPresetError(
            f"{source} is damaged: expected the arguments of {name} as an "
            f"object under `config`. Received: {config.get('config')!r}."
        )
    return found


def check_class(target: type, cls: type, preset) -> None:
    """Raises PresetError unless a preset of `target` suits `cls`."""
    if not issubclass(target, cls):
        name = keras.saving.get_registered_name(target)
        raise PresetError(
            f"The preset {str(preset)!r} holds a {target.__name__}. "
            f"Expected: {cls.__name__} or a subclass of it. "
            f"Received: {name!r}. "
            f"Load it with `{target.__name__}.from_preset`."
        )


def apply_overrides(target: type, arguments: dict, overrides: dict) -> dict:
    """The model's arguments with the caller's put in their place.

    Raises:
        PresetError: If the model has no such argument.
    """
    accepted = _accepted_arguments(target) | set(arguments)
    unknown = sorted(set(overrides) - accepted)
    if unknown:
        close = difflib.get_close_matches(unknown[0], sorted(accepted), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise PresetError(
            f"{target.__name__} has no argument {unknown[0]!r}.{hint} "
            f"Accepted: {sorted(accepted)}."
        )
    superseded = getattr(target, "_superseded", {})
    gone = {name for key in overrides for name in superseded.get(key, ())}
    kept = {k: v for k, v in arguments.items() if k not in gone}
    return {**kept, **overrides}


def set_dtype(arguments: dict, dtype: Any) -> dict:
    """The model's arguments under another dtype policy.

    Parts of the model that follow the model's policy follow it further;
    a part that was given a policy of its own keeps it.
    """
    policy = keras.dtype_policies.get(dtype)
    new = keras.dtype_policies.serialize(policy)
    old = _policy_name(arguments.get("dtype"))

    def replaced(node):
        if isinstance(node, list):
            return [replaced(value) for value in node]
        if not isinstance(node, dict):
            return node
        node = {key: replaced(value) for key, value in node.items()}
        inner = node.get("config")
        if "class_name" in node and isinstance(inner, dict):
            name = _policy_name(inner.get("dtype"))
            if name is not None and old in (None, name):
                node["config"] = {**inner, "dtype": new}
        return node

    return {**replaced(arguments), "dtype": new}


def build_model(target: type, arguments: dict, source: str) -> keras.Model:
    """Construct the model, with Keras' own safe mode on as well."""
    known = _accepted_arguments(target)
    try:
        return target.from_config(arguments)
    # Keras' layers report unknown arguments with either of the two.
    except (TypeError, ValueError) as error:
        unknown = sorted(set(arguments) - known)
        if not unknown:
            raise
        raise PresetError(
            f"{source} has arguments that {target.__name__} does not know: "
            f"{unknown}. A newer keras_vq may: `pip install -U keras-vq`."
        ) from error


def _is_allowed(node: dict) -> bool:
    name, module = node["class_name"], node.get("module")
    if not isinstance(name, str):
        return False
    if name in _PLAIN_VALUES:
        return True
    if name.startswith("__"):
        return False
    if name == "function":
        return _is_allowed_function(node)
    if _registered(node.get("registered_name", name)) is not None:
        return True
    if name in _REFUSED_CLASSES or not isinstance(module, str):
        return False
    # "layers.Lambda" of "keras" is the Lambda layer too, and names in lower
    # case are functions, which Keras would hand out as they are.
    if not (name.isidentifier() and name[0].isupper()):
        return False
    return module in _KERAS_MODULES or module.startswith(_KERAS_OPERATIONS)


def _is_allowed_function(node: dict) -> bool:
    name, module = node.get("config"), node.get("module")
    if not isinstance(name, str):
        return False
    if _registered(name) is not None:
        return True
    # Keras names its own functions as "builtins" and looks for them itself.
    if module not in ("builtins", "keras.activations", "keras.losses"):
        return False
    return hasattr(keras.activations, name) or hasattr(keras.losses, name)


def _registered(name: Any) -> Any:
    """The object registered under "package>name", or None."""
    if not isinstance(name, str) or ">" not in name:
        return None
    return keras.saving.get_registered_object(name)


def _accepted_arguments(target: type) -> set[str]:
    """Names that the constructor takes, or hands on to its bases."""
    named = {"name", "trainable", "dtype"}
    for base in target.__mro__:
        if base is keras.Model:
            break
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        named |= {
            p.name
            for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        }
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return named - {"self"}


def _policy_name(value: Any) -> str | None:
    """The name of a serialized dtype policy, None for anything else."""
    if isinstance(value, dict) and isinstance(value.get("config"), dict):
        return value["config"].get("name")
    return None
