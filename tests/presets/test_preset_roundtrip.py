"""What is saved comes back, in every way that `from_preset` offers."""

import json

import h5py
import keras
import numpy as np
import preset_models
import pytest
from preset_models import OtherModel, TinyModel, TinySubclass

from keras_vq import presets
from keras_vq.presets import load_preset, save_preset


def test_a_loaded_model_is_the_saved_one_bit_for_bit(tiny_model, saved, images):
    loaded = load_preset(TinyModel, saved)
    assert len(loaded.weights) == len(tiny_model.weights) == 17
    for new, old in zip(loaded.weights, tiny_model.weights, strict=True):
        if new is loaded.steps:
            assert new.numpy() == 0 and old.numpy() == 1234
        else:
            assert new.dtype == old.dtype
            assert new.numpy().tobytes() == old.numpy().tobytes(), old.path
    np.testing.assert_array_equal(loaded(images), tiny_model(images))
    assert loaded.name == "tiny" and not loaded.compiled


def test_the_directory_has_the_layout_of_keras_hub(saved, tiny_model):
    assert sorted(path.name for path in saved.iterdir()) == [
        "config.json",
        "metadata.json",
        "model.weights.h5",
    ]
    config = json.loads((saved / "config.json").read_text())
    assert list(config) == ["module", "class_name", "config", "registered_name"]
    assert config["class_name"] == "TinyModel"
    assert config["registered_name"] == "keras_vq_tests>TinyModel"
    assert config["module"] == preset_models.__name__
    facts = json.loads((saved / "metadata.json").read_text())
    assert facts["keras_version"] == keras.__version__
    assert facts["parameter_count"] == tiny_model.count_params()
    assert facts["licence"] == "CC0-1.0"
    assert facts["metadata"] == {"seed": 0}


def test_keras_itself_builds_and_loads_the_files(saved, tiny_model, images):
    config = json.loads((saved / "config.json").read_text())
    model = keras.saving.deserialize_keras_object(config)
    # Keras has no notion of a state that is left out, so the one weight of
    # the model itself is read by the model's own `load_own_variables`.
    model.load_weights(saved / "model.weights.h5")
    np.testing.assert_array_equal(model(images), tiny_model(images))


def test_the_layout_is_that_of_keras_for_every_layer(saved, tiny_model):
    def datasets(path):
        found = {}
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item: (
                    found.update({name: item[()]})
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
        return found

    by_keras = saved.parent / "by_keras.weights.h5"
    tiny_model.save_weights(by_keras)
    expected, found = datasets(by_keras), datasets(saved / "model.weights.h5")
    # The training state: the counter, and what the model writes beside it.
    assert set(expected) - set(found) == {"vars/1", "vars/average"}
    assert set(found) <= set(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])


def test_a_compiled_and_trained_model_saves_no_training_state(tmp_path, images):
    model = TinyModel()
    model.compile("adam", "mse", metrics=["mae"])
    model.fit(images, model(images), epochs=2, verbose=0)
    save_preset(model, tmp_path / "trained")
    with h5py.File(tmp_path / "trained" / "model.weights.h5") as file:
        names = []
        file.visit(names.append)
    assert not [n for n in names if "optimizer" in n or "metric" in n]
    assert not [n for n in names if "average" in n]
    assert (
        "compile_config"
        not in (tmp_path / "trained" / "config.json").read_text()
    )
    loaded = load_preset(TinyModel, tmp_path / "trained")
    np.testing.assert_array_equal(loaded(images), model(images))


def test_the_averaged_weights_are_saved(tmp_path):
    model = TinyModel()
    before = model.scale.numpy()
    model.average = np.arange(4, dtype="float32")
    save_preset(model, tmp_path / "averaged")
    loaded = load_preset(TinyModel, tmp_path / "averaged")
    np.testing.assert_array_equal(loaded.scale, [0, 1, 2, 3])
    np.testing.assert_array_equal(model.scale, before)


def test_saving_twice_gives_the_same_bytes(tiny_model, saved, tmp_path):
    save_preset(tiny_model, tmp_path / "a", metadata={"seed": 0})
    save_preset(tiny_model, tmp_path / "b", metadata={"seed": 0})
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    weights = (tmp_path / "a" / "model.weights.h5").read_bytes()
    assert weights == (saved / "model.weights.h5").read_bytes()


def test_float16_storage_rounds_once_and_loads_as_float32(tiny_model, tmp_path):
    save_preset(tiny_model, tmp_path / "half", float16=True)
    loaded = load_preset(TinyModel, tmp_path / "half")
    for new, old in zip(loaded.weights, tiny_model.weights, strict=True):
        if new is loaded.steps:
            continue
        value = old.numpy()
        if value.dtype == "float32":
            value = value.astype("float16").astype("float32")
        assert new.dtype == old.dtype
        assert new.numpy().tobytes() == value.tobytes(), old.path
    facts = json.loads((tmp_path / "half" / "metadata.json").read_text())
    assert facts["dtype"] == "float16"


def test_float16_refuses_what_it_cannot_hold(tmp_path):
    model = TinyModel()
    model.scale.assign([1.0, 2.0, 65504.0, 4.0])
    save_preset(model, tmp_path / "fits", float16=True)
    model.scale.assign([1.0, 2.0, -65600.0, 4.0])
    with pytest.raises(presets.PresetError, match="float16=False"):
        save_preset(model, tmp_path / "half", float16=True)
    assert not (tmp_path / "half").exists()
    save_preset(model, tmp_path / "full")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_not_saved(tmp_path, value):
    model = TinyModel()
    model.scale.assign([1.0, value, 1.0, 1.0])
    with pytest.raises(presets.PresetError, match="finite.*scale|tiny_model"):
        save_preset(model, tmp_path / "bad")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "dtype", ["float32", "mixed_bfloat16", "mixed_float16", "bfloat16"]
)
def test_dtype_sets_the_policy_of_all_parts(saved, images, dtype):
    model = load_preset(TinyModel, saved, dtype=dtype)
    policy = keras.dtype_policies.get(dtype)
    assert model.dtype_policy.name == dtype
    conv = model.encoder.layers[1]
    assert conv.dtype_policy.name == dtype
    assert conv.kernel.dtype == policy.variable_dtype
    assert model.shift.shift.dtype == "float32"  # Pinned by its layer.
    expected = load_preset(TinyModel, saved)(images)
    result = model(images)
    assert keras.backend.standardize_dtype(result.dtype) == policy.compute_dtype
    tolerance = 1e-6 if dtype == "float32" else 0.05
    np.testing.assert_allclose(
        np.asarray(result, "float32"), expected, atol=tolerance, rtol=tolerance
    )


def test_dtype_reaches_nested_parts_but_not_those_pinned(tmp_path, images):
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, dtype="mixed_bfloat16")(inputs)
    x = keras.layers.Dense(2, dtype="float32")(x)
    parts = keras.Model(inputs, x)
    model = OtherModel(parts, dtype="mixed_bfloat16")
    save_preset(model, tmp_path / "parts")
    loaded = load_preset(OtherModel, tmp_path / "parts", dtype="mixed_float16")
    _, conv, dense = loaded.encoder.layers
    assert conv.dtype_policy.name == "mixed_float16"
    assert dense.dtype_policy.name == "float32"
    assert keras.backend.standardize_dtype(loaded(images).dtype) == "float32"
    same = load_preset(OtherModel, tmp_path / "parts")
    assert same.encoder.layers[1].dtype_policy.name == "mixed_bfloat16"
    np.testing.assert_array_equal(same(images), model(images))


def test_float16_variables_refuse_values_beyond_their_range(tmp_path):
    model = TinyModel()
    model.encoder.layers[1].kernel.assign(np.full((3, 3, 3, 4), 1e5, "float32"))
    save_preset(model, tmp_path / "large")
    load_preset(TinyModel, tmp_path / "large", dtype="mixed_float16")
    with pytest.raises(presets.PresetError, match="float16 cannot hold"):
        load_preset(TinyModel, tmp_path / "large", dtype="float16")


def test_overrides_replace_arguments(saved, images):
    model = load_preset(TinyModel, saved, activation="tanh", name="other")
    assert model.activation == "tanh" and model.name == "other"
    other = load_preset(TinyModel, saved)
    np.testing.assert_array_equal(model.scale, other.scale)
    assert np.abs(model(images) - other(images)).max() > 0.01


def test_an_override_that_changes_shapes_needs_fresh_weights(saved):
    with pytest.raises(presets.PresetError, match="load_weights=False"):
        load_preset(TinyModel, saved, units=5)
    model = load_preset(TinyModel, saved, load_weights=False, units=5)
    assert model.scale.shape == (5,)


def test_an_unknown_override_lists_the_accepted_ones(saved):
    with pytest.raises(presets.PresetError) as error:
        load_preset(TinyModel, saved, unit=5)
    message = str(error.value)
    assert "Did you mean 'units'?" in message
    assert "['activation', 'channels', 'dtype', 'name'" in message


def test_an_override_may_be_a_live_object(tmp_path, images):
    parts = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Dense(4)])
    save_preset(OtherModel(parts), tmp_path / "parts")
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Dense(2)])

    class Live(OtherModel):
        @classmethod
        def from_config(cls, config):
            return cls(**config)

    keras.saving.register_keras_serializable("keras_vq_tests")(Live)
    config = json.loads((tmp_path / "parts" / "config.json").read_text())
    arguments = presets.config.apply_overrides(
        OtherModel, config["config"], {"encoder": other}
    )
    assert Live.from_config(arguments).encoder is other


def test_fresh_weights_need_no_weight_file(preset, tiny_model):
    (preset / "model.weights.h5").unlink()
    keras.utils.set_random_seed(1)
    model = load_preset(TinyModel, preset, load_weights=False)
    assert np.abs(model.scale - tiny_model.scale).max() > 0
    with pytest.raises(presets.DamagedPresetError, match="model.weights.h5"):
        load_preset(TinyModel, preset)


def test_the_class_named_in_the_preset_is_built(saved, tmp_path):
    save_preset(TinySubclass(), tmp_path / "sub")
    assert type(load_preset(TinyModel, tmp_path / "sub")) is TinySubclass
    assert type(load_preset(keras.Model, tmp_path / "sub")) is TinySubclass
    with pytest.raises(presets.PresetError) as error:
        load_preset(TinySubclass, saved)
    assert "holds a TinyModel. Expected: TinySubclass" in str(error.value)
    with pytest.raises(presets.PresetError, match="TinyModel.from_preset"):
        load_preset(OtherModel, saved)


def test_paths_of_any_kind(saved, monkeypatch, images):
    monkeypatch.chdir(saved.parent)
    monkeypatch.setenv("HOME", str(saved.parent))
    expected = load_preset(TinyModel, saved)(images)
    for path in (str(saved), "tiny", "./tiny", "~/tiny", "tiny/"):
        np.testing.assert_array_equal(
            load_preset(TinyModel, path)(images), expected
        )


def test_unregistered_classes_are_refused_when_saving(tmp_path):
    class Foreign(TinyModel):
        pass

    with pytest.raises(presets.PresetError, match="register_keras_serial"):
        save_preset(Foreign(), tmp_path / "foreign")
    parts = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.Lambda(lambda x: x)]
    )
    with pytest.raises(presets.UnsafePresetError, match="Lambda"):
        save_preset(OtherModel(parts), tmp_path / "lambda")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_would_be_lost_are_refused(tmp_path):
    @keras.saving.register_keras_serializable("keras_vq_tests")
    class WithSet(keras.layers.Layer):
        def build(self, input_shape):
            # Keras tracks the layers of a set, and never saves them.
            self.parts = {keras.layers.Dense(2)}

        def call(self, inputs):
            (part,) = self.parts
            return part(inputs)

    model = OtherModel(WithSet())
    assert len(model.weights) == 2
    with pytest.raises(presets.PresetError, match="would lose them"):
        save_preset(model, tmp_path / "lost")


def test_an_unbuilt_model_is_refused(tmp_path):
    @keras.saving.register_keras_serializable("keras_vq_tests")
    class Unbuilt(keras.Model):
        pass

    with pytest.raises(presets.PresetError, match="built model"):
        save_preset(Unbuilt(), tmp_path / "unbuilt")
    assert list(tmp_path.iterdir()) == []
