import warnings

import keras
import numpy as np
import pytest

import keras_vq
from keras_vq.callbacks import CodebookHealth
from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer

SIZE = 16


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (8, 8, 8, 3)).astype("float32")


def collapsed_model(quantizer_class=EMAVectorQuantizer):
    """A model whose latents all go to code 0; the others are far away."""
    keras.utils.set_random_seed(0)
    quantizer = quantizer_class(
        SIZE, 4, decay=0.5, revival_threshold=0, codebook_initializer="zeros"
    )
    model = keras_vq.models.VQVAE(
        hidden_units=8, residual_units=4, codebook_dim=4, quantizer=quantizer
    )
    far = np.full((SIZE, 4), 1e3, "float32")
    far[0] = 0
    quantizer._restart(far)
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def fit(model, images, epochs, *callbacks, **kwargs):
    return model.fit(
        images,
        epochs=epochs,
        batch_size=2,
        callbacks=list(callbacks),
        **{"verbose": 0, **kwargs},
    ).history


def messages(record):
    return [str(w.message) for w in record if "codebook" in str(w.message)]


def test_collapse_is_reported_once_with_advice(images):
    health = CodebookHealth(patience=2)
    with pytest.warns(UserWarning) as record:
        history = fit(collapsed_model(), images, 4, health)
    assert max(history["codes_used"]) == 1
    assert health.collapsed_epochs == 4
    (message,) = messages(record)
    assert "codes_used is 1 of 16 codes (below 25%)" in message
    assert "perplexity is 1 of 16 codes (below 10%)" in message
    assert "2 epochs up to epoch 2" in message
    assert "model.adapt(dataset)" in message and "revive" in message
    # Nothing was asked to be changed.
    assert health.revived_codes == 0


def test_patience_is_about_epochs_in_a_row(images):
    health = CodebookHealth(patience=3)
    model = collapsed_model()
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        fit(model, images, 2, health)
        health.on_train_begin()
        for used in (1, 1, 16, 1, 1):
            health.on_epoch_end(0, {"codes_used": used, "perplexity": used})
    assert health.collapsed_epochs == 2
    assert not messages(record)


def test_a_healthy_codebook_is_left_alone(images):
    keras.utils.set_random_seed(0)
    model = keras_vq.models.VQVAE(
        hidden_units=8, residual_units=4, codebook_size=8, codebook_dim=4
    )
    model.compile()
    health = CodebookHealth(patience=1, revive=images)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        history = fit(model, images, 3, health)
    assert min(history["codes_used"]) > 2
    assert not messages(record)
    assert health.revived_codes == 0


@pytest.mark.parametrize("kind", [EMAVectorQuantizer, VectorQuantizer])
def test_revived_codes_are_latents_and_are_used(kind, images, capsys):
    model = collapsed_model(kind)
    health = CodebookHealth(patience=2, revive=images)
    with pytest.warns(UserWarning, match="collapsing"):
        history = fit(model, images, 2, health, verbose=2)
    assert max(history["codes_used"]) == 1
    assert health.revived_codes == SIZE - 1
    assert f"moved {SIZE - 1} codes" in capsys.readouterr().out
    latents = np.asarray(model.encoder(images)).reshape(-1, 4)
    codes = np.asarray(model.quantizer.codebook)
    for code in codes[1:]:
        distance = np.abs(latents - code).max(axis=1).min()
        assert distance < 1e-6
    counts = np.asarray(model.quantizer.counts)
    assert counts.min() > 0.1 * counts.mean()
    assert fit(model, images, 1)["codes_used"][0] > SIZE / 2


def test_nothing_is_revived_in_a_frozen_codebook(images):
    model = collapsed_model()
    model.quantizer.trainable = False
    model.compile()
    before = np.asarray(model.quantizer.codebook).copy()
    health = CodebookHealth(patience=1, revive=images)
    with pytest.warns(UserWarning, match="collapsing"):
        fit(model, images, 2, health)
    np.testing.assert_array_equal(model.quantizer.codebook, before)
    assert health.revived_codes == 0


def test_nan_counts_as_a_collapse():
    health = CodebookHealth(patience=1)
    health.set_model(collapsed_model())
    with pytest.warns(UserWarning, match="perplexity is nan"):
        health.on_epoch_end(0, {"codes_used": 16.0, "perplexity": np.nan})


def test_a_threshold_of_zero_switches_off():
    health = CodebookHealth(0, 0, patience=1)
    health.set_model(collapsed_model())
    health.on_epoch_end(0, {"codes_used": 1.0, "perplexity": 1.0})
    assert health.collapsed_epochs == 0


def test_missing_logs_are_said_once():
    health = CodebookHealth(min_perplexity=0)
    health.set_model(collapsed_model())
    with pytest.warns(UserWarning, match=r"cannot watch `codes_used`") as seen:
        health.on_epoch_end(0, {"loss": 1.0})
        health.on_epoch_end(1, {"loss": 1.0})
    assert len([w for w in seen if "cannot watch" in str(w.message)]) == 1


def test_models_without_a_codebook_are_refused(images):
    model = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="needs a model with a `quantizer`"):
        model.fit(images, np.zeros(8), verbose=0, callbacks=[CodebookHealth()])


@pytest.mark.parametrize(
    "arguments",
    [{"min_codes_used": 1.5}, {"min_perplexity": -0.1}, {"patience": 0}],
)
def test_impossible_arguments_are_refused(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=f"{name}=.*"):
        CodebookHealth(**arguments)
