"""The package's own models as presets."""

import json
import pathlib
import re

import keras
import numpy as np
import pytest

import keras_vq
from keras_vq import presets
from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer
from keras_vq.models import VQVAE, VQAutoencoder


def small(**kwargs):
    arguments = {
        "hidden_units": 8,
        "residual_units": 4,
        "codebook_size": 16,
        "codebook_dim": 4,
    }
    return VQVAE(**{**arguments, **kwargs})


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (8, 16, 16, 3)).astype("float32")


@pytest.fixture(scope="module")
def trained(batch):
    keras.utils.set_random_seed(0)
    model = small(use_batch_normalization=True)
    model.compile("adam", weight_ema=0.9)
    model.fit(batch, epochs=3, batch_size=4, verbose=0)
    return model


@pytest.fixture(scope="module")
def saved(trained, tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "vqvae"
    trained.save_to_preset(directory, metadata={"licence": "Apache-2.0"})
    return directory


def test_a_trained_model_comes_back_averaged_and_uncounted(
    trained, saved, batch
):
    loaded = VQVAE.from_preset(saved)
    assert type(loaded) is VQVAE and not loaded.compiled
    assert trained.steps.numpy() == 6 and loaded.steps.numpy() == 0
    with trained.averaged_weights():
        np.testing.assert_array_equal(loaded(batch), trained(batch))
        codes = trained.encode(batch)
    np.testing.assert_array_equal(loaded.encode(batch), codes)
    assert np.abs(loaded(batch) - trained(batch)).max() > 0
    assert loaded.quantizer.initialized


def test_the_base_class_builds_what_the_preset_names(saved, tmp_path):
    assert type(VQAutoencoder.from_preset(saved)) is VQVAE
    encoder = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(4, 2, strides=2)]
    )
    decoder = keras.Sequential(
        [
            keras.Input((None, None, 4)),
            keras.layers.Conv2DTranspose(3, 2, strides=2),
        ]
    )
    model = VQAutoencoder(encoder, VectorQuantizer(8, 2), decoder)
    model.save_to_preset(tmp_path / "own")
    loaded = VQAutoencoder.from_preset(tmp_path / "own")
    images = np.zeros((2, 8, 8, 3), "float32")
    np.testing.assert_array_equal(loaded(images), model(images))
    with pytest.raises(presets.PresetError, match="holds a VQAutoencoder"):
        VQVAE.from_preset(tmp_path / "own")


@pytest.mark.parametrize(
    "loss", ["mse", "l1", "gaussian", "discretized_logistic"]
)
def test_reconstruction_losses_are_part_of_the_preset(tmp_path, loss):
    model = small(reconstruction_loss=loss)
    model.save_to_preset(tmp_path / "loss")
    loaded = VQVAE.from_preset(tmp_path / "loss")
    assert type(loaded.reconstruction_loss) is type(model.reconstruction_loss)
    for new, old in zip(loaded.weights, model.weights, strict=True):
        np.testing.assert_array_equal(new, old)


def test_load_weights_of_keras_reads_the_file(trained, saved, batch):
    model = small(use_batch_normalization=True)
    model.steps.assign(3)
    model.load_weights(saved / "model.weights.h5")
    with trained.averaged_weights():
        np.testing.assert_array_equal(model(batch), trained(batch))
    assert model.steps.numpy() == 3


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_the_codebook_in_float32(saved, batch, dtype):
    reference = VQVAE.from_preset(saved)
    model = VQVAE.from_preset(saved, dtype=dtype)
    assert model.compute_dtype == dtype.removeprefix("mixed_")
    convolutions = [w for w in model.encoder.layers if hasattr(w, "kernel")]
    assert {w.compute_dtype for w in convolutions} == {model.compute_dtype}
    assert model.quantizer.codebook.dtype == "float32"
    np.testing.assert_array_equal(
        model.quantizer.codebook, reference.quantizer.codebook
    )
    error = np.abs(
        np.asarray(model(batch), "float32") - np.asarray(reference(batch))
    )
    assert 0 < error.mean() < 0.05


def test_a_loaded_model_trains_on(saved, batch):
    model = VQVAE.from_preset(saved)
    model.compile("adam")
    history = model.fit(batch, epochs=2, batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert model.steps.numpy() == 4


def test_overrides_of_the_package_models(saved, batch):
    model = VQVAE.from_preset(saved, commitment_weight=0.5)
    assert model.loss_weights["commitment_loss"] == 0.5
    fresh = VQVAE.from_preset(saved, load_weights=False, codebook_size=32)
    assert fresh.quantizer.codebook_size == 32
    assert not fresh.quantizer.initialized
    with pytest.raises(presets.PresetError, match="'codebook_size'"):
        VQVAE.from_preset(saved, codebook_sizes=32)
    with pytest.raises(presets.PresetError, match="load_weights=False"):
        VQVAE.from_preset(saved, codebook_size=32)
    with pytest.raises(ValueError, match="codebook_size"):
        VQVAE.from_preset(saved, load_weights=False, codebook_size=-1)


def test_size_of_the_codebook_by_override(tmp_path):
    model = small(quantizer=VectorQuantizer(16, 4))
    model.save_to_preset(tmp_path / "own")
    assert VQVAE.from_preset(tmp_path / "own").quantizer.codebook_size == 16
    with pytest.raises(ValueError, match="codebook_size=32, and a quantizer"):
        VQVAE.from_preset(
            tmp_path / "own", load_weights=False, codebook_size=32
        )
    small().save_to_preset(tmp_path / "made")
    larger = VQVAE.from_preset(
        tmp_path / "made", load_weights=False, codebook_size=32
    )
    assert larger.quantizer.codebook.shape == (32, 4)
    # A quantizer brings its own size, whatever was saved.
    other = VQVAE.from_preset(
        tmp_path / "made", load_weights=False, quantizer=VectorQuantizer(8, 4)
    )
    assert other.get_config()["codebook_size"] == 8


def test_another_quantizer_by_override(tmp_path):
    encoder = keras.Sequential(
        [keras.Input((None, None, 3)), keras.layers.Conv2D(4, 2, strides=2)]
    )
    decoder = keras.Sequential(
        [
            keras.Input((None, None, 4)),
            keras.layers.Conv2DTranspose(3, 2, strides=2),
        ]
    )
    model = VQAutoencoder(encoder, VectorQuantizer(8, 4), decoder)
    model.save_to_preset(tmp_path / "own")
    quantizer = EMAVectorQuantizer(32, 4)
    loaded = VQAutoencoder.from_preset(
        tmp_path / "own", load_weights=False, quantizer=quantizer
    )
    assert loaded.quantizer is quantizer


def test_half_precision_storage_halves_the_file(trained, saved, tmp_path):
    trained.save_to_preset(tmp_path / "half", float16=True)

    def size(directory):
        facts = json.loads((directory / "metadata.json").read_text())
        return facts["files"]["model.weights.h5"]["size"]

    headers = 600 * len(trained.weights)
    assert size(tmp_path / "half") < size(saved) / 2 + headers
    loaded = VQVAE.from_preset(tmp_path / "half")
    assert {w.dtype for w in loaded.weights} == {"float32", "int32"}


def test_the_snippets_of_the_guide_run(tmp_path, monkeypatch):
    guide = pathlib.Path(__file__).parents[2] / "docs" / "presets.md"
    text = guide.read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    namespace = {"keras": keras, "keras_vq": keras_vq, "model": small()}
    # The first one loads the bundled preset, which has tests of its own.
    monkeypatch.chdir(tmp_path)
    for snippet in snippets[1:]:
        exec(snippet, namespace)
    assert namespace["model"].quantizer.codebook_size == 16
    assert presets.verify("./my_preset")
