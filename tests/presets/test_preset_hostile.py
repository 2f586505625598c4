"""Files made to harm: refused before they can do anything."""

import json
import tracemalloc
import weakref

import h5py
import keras
import numpy as np
import pytest
from preset_models import OtherModel, TinyModel

from keras_vq import presets
from keras_vq.presets import load_preset, save_preset

TARGET = "layers/shift/vars/0"  # float32, shape (4,)


def external_link(file, path):
    del file[TARGET]
    file[TARGET] = h5py.ExternalLink(str(path), "/secret")


def soft_link(file, path):
    del file[TARGET]
    file[TARGET] = h5py.SoftLink("/vars/0")


def linked_group(file, path):
    del file["layers/shift"]
    file["layers/shift"] = h5py.SoftLink("/encoder")


def external_storage(file, path):
    del file[TARGET]
    file.create_dataset(
        TARGET, (4,), "float32", external=[("/etc/hostname", 0, 16)]
    )


def virtual_dataset(file, path):
    del file[TARGET]
    layout = h5py.VirtualLayout((4,), "float32")
    layout[:] = h5py.VirtualSource(str(path), "secret", (4,))
    file.create_virtual_dataset(TARGET, layout)


def wrong_shape(file, path):
    del file[TARGET]
    file[TARGET] = np.zeros((2, 2), "float32")


def wrong_rank(file, path):
    del file[TARGET]
    file[TARGET] = np.float32(0)


def missing(file, path):
    del file[TARGET]


def extra(file, path):
    file["layers/shift/vars/7"] = np.zeros(4, "float32")


def extra_group(file, path):
    file.create_group("optimizer/vars")


def strings(file, path):
    del file[TARGET]
    file[TARGET] = ["a", "b", "c", "d"]


def float64(file, path):
    del file[TARGET]
    file[TARGET] = np.zeros(4, "float64")


def integers_as_floats(file, path):
    del file["layers/shift/vars/1"]
    file["layers/shift/vars/1"] = np.zeros(4, "float32")


def group_for_dataset(file, path):
    del file[TARGET]
    file.create_group(TARGET)


def dataset_for_group(file, path):
    del file["layers/shift"]
    file["layers/shift"] = np.zeros(4, "float32")


def named_type(file, path):
    del file[TARGET]
    file[TARGET] = np.dtype("float32")


def group_in_itself(file, path):
    del file["layers/shift/vars"]
    file["layers/shift/vars"] = file["layers/shift"]


def compressed(file, path):
    del file[TARGET]
    file.create_dataset(TARGET, data=np.zeros(4, "f4"), compression="gzip")


def large_chunk(file, path):
    del file[TARGET]
    file.create_dataset(
        TARGET, (4,), "f4", chunks=(2**28,), maxshape=(None,), fillvalue=1
    )


def large_shape(file, path):
    del file[TARGET]
    file.create_dataset(TARGET, (2**20, 2**10), "float32")  # 4 GiB, unwritten


def large_compressed_shape(file, path):
    del file[TARGET]
    file.create_dataset(
        TARGET, (2**20, 2**10), "f4", chunks=(2**10, 2**10), compression=9
    )


def no_data(file, path):
    del file[TARGET]
    file.create_dataset(TARGET, (4,), "float32")


HOSTILE = [
    external_link,
    soft_link,
    linked_group,
    external_storage,
    virtual_dataset,
    wrong_shape,
    wrong_rank,
    missing,
    extra,
    extra_group,
    strings,
    float64,
    integers_as_floats,
    group_for_dataset,
    dataset_for_group,
    named_type,
    group_in_itself,
    compressed,
    large_chunk,
    large_shape,
    large_compressed_shape,
    no_data,
]
UNSAFE = {
    "external_link",
    "soft_link",
    "linked_group",
    "external_storage",
    "virtual_dataset",
    "compressed",
    "large_chunk",
    "no_data",
}


@pytest.mark.parametrize("attack", HOSTILE, ids=lambda f: f.__name__)
def test_hostile_weight_files(preset, reseal, tmp_path, monkeypatch, attack):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.arange(4, dtype="float32")
    path = preset / "model.weights.h5"
    with h5py.File(path, "r+") as file:
        attack(file, tmp_path / "other.h5")
    reseal(preset)
    reads = []
    read = h5py.Dataset.__getitem__
    monkeypatch.setattr(
        h5py.Dataset,
        "__getitem__",
        lambda self, key, **kw: reads.append(self.name) or read(self, key),
    )
    is_unsafe = attack.__name__ in UNSAFE
    kind = presets.UnsafePresetError if is_unsafe else presets.PresetError
    tracemalloc.start()
    try:
        with pytest.raises(kind, match="shift|optimizer"):
            load_preset(TinyModel, preset)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reads == []
    assert peak < 32 * 2**20


def test_arrays_are_read_layer_by_layer(tmp_path, monkeypatch):
    """Bytes would not tell: TensorFlow keeps its copies for a while."""
    parts = [keras.Input((8, 8, 3)), keras.layers.Dense(4)]
    parts += [keras.layers.Dense(4, use_bias=False) for _ in range(8)]
    model = OtherModel(keras.Sequential(parts))
    save_preset(model, tmp_path / "deep")
    read, arrays, held = presets.weights._read, [], []

    def recorded(*arguments):
        array = read(*arguments)
        arrays.append(weakref.ref(array))
        held.append(sum(ref() is not None for ref in arrays))
        return array

    monkeypatch.setattr(presets.weights, "_read", recorded)
    with open(tmp_path / "deep" / "model.weights.h5", "rb") as file:
        presets.weights.read_weights(model, file, "weights")
    assert len(arrays) == 10
    # A kernel and a bias, and the kernel to come; JAX may not be through with
    # copying one before.
    assert max(held) <= 3 + (keras.backend.backend() == "jax")


def node(module, class_name, config=None, **fields):
    return {
        "module": module,
        "class_name": class_name,
        "config": {} if config is None else config,
        **fields,
    }


def function(module, name, **fields):
    return node(module, "function", name, registered_name=name, **fields)


MARK = "touch keras_vq_hostile_configuration"
LAMBDA = node(
    "builtins",
    "__lambda__",
    {"value": ["4wAAAAA=", None, None]},
)
CONFIGS = {
    "lambda": node("keras.layers", "Lambda", {"function": LAMBDA}),
    "lambda function": LAMBDA,
    "dotted lambda": node("keras", "layers.Lambda", {"function": LAMBDA}),
    "old lambda": {"class_name": "Lambda", "config": {"function": MARK}},
    "deep lambda": [{"a": [{"b": node("keras.layers", "Lambda")}]}],
    "os.system": function("os", "system"),
    "posix.system": function("posix", "system"),
    "eval": function("builtins", "eval"),
    "popen": node("subprocess", "Popen", {"args": MARK, "shell": True}),
    "unknown module": node("evil", "Evil", registered_name="evil>Evil"),
    "own module": node("keras_vq.cli", "main"),
    "keras_hub": node("keras_hub.layers", "Anything"),
    "get_file": function("keras.utils", "get_file"),
    "get_file class": node("keras.utils", "get_file"),
    "unsafe": function("keras.config", "enable_unsafe_deserialization"),
    "load_model": function("keras.models", "load_model"),
    "load_model class": node("keras.models", "load_model"),
    "private": node("keras.src.saving.saving_lib", "load_model"),
    "saved model": node("keras.layers", "TFSMLayer", {"filepath": "/tmp"}),
    "torch": node("keras.layers", "TorchModuleWrapper", {"module": "x"}),
    "jax": node("keras.layers", "JaxLayer"),
    "flax": node("keras.layers", "FlaxLayer"),
    "lookup": node(
        "keras.layers", "StringLookup", {"vocabulary": "/etc/passwd"}
    ),
    "text": node("keras.layers", "TextVectorization"),
    "typespec": {
        "class_name": "__typespec__",
        "spec_name": "X",
        "module": "os",
        "config": [],
        "registered_name": None,
    },
    "no text": node("keras.layers", ["Dense"]),
    "unregistered": node(
        "keras_vq.models", "Nothing", registered_name="keras_vq>Nothing"
    ),
    "no module": {"class_name": "Dense", "config": {"units": 3}},
    "optimizer": node("keras.optimizers", "Adam"),
}


@pytest.fixture(scope="session")
def nested(tmp_path_factory):
    parts = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Dense(4)])
    directory = tmp_path_factory.mktemp("nested") / "preset"
    save_preset(OtherModel(parts), directory)
    return directory


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_configurations(preset, reseal, monkeypatch, name, safe):
    """Also where the user has switched Keras' own safe mode off."""
    built = []
    monkeypatch.setattr(
        TinyModel, "from_config", lambda config: built.append(config)
    )
    path = preset / "config.json"
    content = json.loads(path.read_text())
    content["config"]["activation"] = CONFIGS[name]
    path.write_text(json.dumps(content))
    reseal(preset)
    if not safe:
        keras.config.enable_unsafe_deserialization()
    try:
        with pytest.raises(presets.UnsafePresetError, match="may not name"):
            load_preset(TinyModel, preset)
        with pytest.raises(presets.UnsafePresetError, match="may not name"):
            presets.verify(preset)
    finally:
        keras.src.backend.common.global_state.set_global_attribute(
            "safe_mode_saving", None
        )
    assert built == []


@pytest.mark.parametrize("name", CONFIGS)
def test_hostile_configurations_inside_keras_models(nested, name):
    content = json.loads((nested / "config.json").read_text())
    layers = content["config"]["encoder"]["config"]["layers"]
    layers.insert(1, CONFIGS[name])
    with pytest.raises(presets.UnsafePresetError, match="may not name"):
        presets.config.check_config(content, "config.json")


@pytest.mark.parametrize(
    "registered_name", [None, "", "Dense", "keras_vq>Nothing", 3, ["a"]]
)
def test_models_that_are_not_registered(preset, reseal, registered_name):
    path = preset / "config.json"
    content = json.loads(path.read_text())
    content["registered_name"] = registered_name
    path.write_text(json.dumps(content))
    reseal(preset)
    with pytest.raises(presets.PresetError, match="register"):
        load_preset(TinyModel, preset)


def test_a_registered_class_that_is_no_model(preset, reseal):
    path = preset / "config.json"
    content = json.loads(path.read_text())
    content["registered_name"] = "keras_vq_tests>Shift"
    path.write_text(json.dumps(content))
    reseal(preset)
    with pytest.raises(presets.PresetError, match="describes no model"):
        load_preset(keras.Model, preset)


def test_optimizers_in_a_configuration_are_refused(preset, reseal):
    path = preset / "config.json"
    content = json.loads(path.read_text())
    optimizer = keras.saving.serialize_keras_object(keras.optimizers.Adam())
    content["compile_config"] = {"optimizer": optimizer}
    path.write_text(json.dumps(content))
    reseal(preset)
    with pytest.raises(presets.UnsafePresetError, match="Adam"):
        load_preset(TinyModel, preset)


def test_ordinary_networks_are_allowed(tmp_path, images):
    x = inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(
        4, 3, activation="silu", kernel_regularizer="l2", padding="same"
    )(x)
    x = keras.layers.GroupNormalization(2)(x) * 2 + 1
    x = keras.ops.relu(x) - keras.ops.mean(x, axis=1, keepdims=True)
    x = keras.layers.Activation(keras.activations.gelu)(x)
    x = keras.layers.TimeDistributed(keras.layers.Dense(3))(x)
    x = keras.layers.UpSampling2D(2)(keras.layers.Add()([x, inputs]))
    model = OtherModel(keras.Model(inputs, x))
    save_preset(model, tmp_path / "ordinary")
    loaded = load_preset(OtherModel, tmp_path / "ordinary")
    np.testing.assert_array_equal(loaded(images), model(images))
