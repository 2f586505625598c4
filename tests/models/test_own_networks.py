"""VQAutoencoder around networks as users write them."""

import keras
import networks
import numpy as np
import pytest
from keras import layers

from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer
from keras_vq.models import VQVAE, VQAutoencoder


def _model(encoder=None, quantizer=None, decoder=None, **arguments):
    return VQAutoencoder(
        encoder or networks.encoder(),
        quantizer or EMAVectorQuantizer(8, 4),
        decoder or networks.decoder(),
        **arguments,
    )


def _state(layer):
    return [np.array(w) for w in layer.weights]


def _assert_same(before, layer):
    for old, new in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(old, new, err_msg=new.path)


def _moved(before, layer):
    pairs = zip(before, layer.weights, strict=True)
    return [bool(np.any(old != np.asarray(new))) for old, new in pairs]


# Shapes


def test_encoder_of_one_image_size():
    model = _model(networks.encoder(size=12))
    assert model.downsample_factor == 4
    images = networks.images(8, 12, 12, 3)
    model.compile()
    model.fit(images, batch_size=8, verbose=0)
    assert model.encode(images).shape == (8, 3, 3)
    assert model(images).shape == images.shape


def test_channels_of_a_subclassed_encoder():
    model = _model(
        networks.DropoutEncoder(), decoder=networks.decoder(5), channels=5
    )
    assert model.channels == 5
    assert model(networks.images(2, 9, 8, 5)).shape == (2, 9, 8, 5)


def test_signals_instead_of_images():
    """One axis between batch and channels: audio, time series."""
    inputs = keras.Input((None, 2))
    encoder = keras.Model(
        inputs, layers.Conv1D(4, 4, 2, padding="same")(inputs)
    )
    inputs = keras.Input((None, 4))
    decoder = keras.Model(
        inputs, layers.Conv1DTranspose(2, 4, 2, padding="same")(inputs)
    )
    model = _model(encoder, decoder=decoder)
    assert model.downsample_factor == 2
    signals = networks.images(16, 11, 2)
    model.compile(metrics=["mae"])
    history = model.fit(signals, batch_size=8, epochs=2, verbose=0).history
    assert history["mae"][0] > 0
    assert model.encode(signals).shape == (16, 6)
    assert model(signals).shape == signals.shape


@pytest.mark.parametrize("strides", [(2, 1), (3, 3)])
def test_encoder_that_does_not_divide_the_sides(strides):
    inputs = keras.Input((None, None, 3))
    encoder = keras.Model(inputs, layers.Conv2D(4, 3, strides)(inputs))
    with pytest.raises(ValueError, match="every side by the same whole"):
        _model(encoder)


def test_networks_that_do_not_fit():
    with pytest.raises(ValueError, match="images of 3 channels.*Received"):
        _model(decoder=networks.decoder(channels=1))
    with pytest.raises(ValueError, match="must be a keras_vq.layers.Quantizer"):
        _model(quantizer=layers.Dense(4))
    with pytest.raises(ValueError, match="`decoder` must be a Keras layer"):
        _model(decoder=lambda codes: codes)


@pytest.mark.parametrize("strides,side", [(1, 128), (4, 512)])
def test_decoder_that_does_not_undo_the_encoder(strides, side):
    """A larger reconstruction would be cropped, and trained, in silence."""
    inputs = keras.Input((None, None, 3))
    encoder = keras.Model(inputs, layers.Conv2D(4, 4, 2, "same")(inputs))
    inputs = keras.Input((None, None, 4))
    outputs = layers.Conv2DTranspose(3, 4, strides, "same")(inputs)
    received = rf"Received: images of shape \(1, {side}, {side}, 3\)"
    with pytest.raises(ValueError, match=received):
        _model(encoder, decoder=keras.Model(inputs, outputs))


@pytest.mark.parametrize("name", ["commitment_weight", "codebook_weight"])
def test_negative_weight_of_a_loss(name):
    with pytest.raises(ValueError, match="must not be negative"):
        _model(**{name: -0.25})


# Parts that do not learn


def test_frozen_encoder():
    model = _model(quantizer=VectorQuantizer(8, 4))
    model.encoder.trainable = False
    model.compile(keras.optimizers.Adam(1e-2), weight_ema=0.5)
    images = networks.images(16, 8, 8, 3)
    model.adapt(images)
    parts = (model.encoder, model.quantizer, model.decoder)
    before = [_state(part) for part in parts]
    model.fit(images, batch_size=8, epochs=2, verbose=0)
    _assert_same(before[0], model.encoder)
    assert _moved(before[1], model.quantizer)[0]
    assert all(_moved(before[2], model.decoder))


@pytest.mark.parametrize("quantizer", [VectorQuantizer, EMAVectorQuantizer])
def test_frozen_quantizer(quantizer):
    """The codes stay, encoder and decoder learn to use them."""
    model = _model(quantizer=quantizer(8, 6))  # with projections
    images = networks.images(16, 8, 8, 3)
    model.adapt(images)
    model.quantizer.trainable = False
    model.compile(keras.optimizers.Adam(1e-2))
    before = [_state(p) for p in (model.quantizer, model.encoder)]
    model.fit(images, batch_size=8, epochs=2, verbose=0)
    _assert_same(before[0], model.quantizer)
    assert all(_moved(before[1], model.encoder))


def test_regularizers_of_the_encoder():
    strength = 0.05
    model = _model(
        networks.encoder(
            kernel_regularizer=keras.regularizers.L2(strength),
        ),
        quantizer=EMAVectorQuantizer(8, 4, revival_threshold=0),
    )
    images = networks.images(8, 8, 8, 3)
    model.adapt(images)
    kernel = next(w for w in model.encoder.weights if w.name == "kernel")
    start = np.array(kernel)
    penalty = strength * (start.astype("float64") ** 2).sum()
    weights = model.get_weights()
    kernels, logs = {}, {}
    for parts in (1, 2):
        model.set_weights(weights)
        model.compile(keras.optimizers.SGD(0.1), accumulation_steps=parts)
        history = model.fit(images, batch_size=8, verbose=0).history
        logs[parts] = {key: value[0] for key, value in history.items()}
        kernels[parts] = np.array(kernel)
    for log in logs.values():
        # Once for the batch, not once for each of its parts.
        assert log["regularization_loss"] == pytest.approx(penalty, rel=1e-5)
        terms = log["reconstruction_loss"] + 0.25 * log["commitment_loss"]
        assert log["loss"] == pytest.approx(terms + penalty, rel=1e-5)
    np.testing.assert_allclose(kernels[1], kernels[2], atol=1e-6)
    # The same step without the penalty differs by its gradient.
    plain = _model(quantizer=EMAVectorQuantizer(8, 4, revival_threshold=0))
    plain.set_weights(weights)
    plain.compile(keras.optimizers.SGD(0.1))
    plain.fit(images, batch_size=8, verbose=0)
    other = next(w for w in plain.encoder.weights if w.name == "kernel")
    np.testing.assert_allclose(
        kernels[1], np.asarray(other) - 0.1 * 2 * strength * start, atol=1e-6
    )


# Parts in other models


def test_encoder_as_a_frozen_feature_extractor():
    model = VQVAE(hidden_units=8, residual_units=4, codebook_dim=4)
    images = networks.images(32, 8, 8, 3)
    labels = (images.mean((1, 2, 3)) > 0).astype("int32")
    before = _state(model)
    model.encoder.trainable = False
    inputs = keras.Input((8, 8, 3))
    features = model.encoder(inputs, training=False)
    logits = layers.Dense(2)(layers.Flatten()(features))
    classifier = keras.Model(inputs, logits)
    assert len(classifier.trainable_weights) == 2
    classifier.compile(
        keras.optimizers.Adam(0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    loss = classifier.fit(images, labels, epochs=30, verbose=0).history["loss"]
    assert loss[-1] < 0.8 * loss[0]
    _assert_same(before, model)


def test_quantizer_and_decoder_in_a_functional_model():
    model = VQVAE(hidden_units=8, residual_units=4, codebook_dim=4)
    inputs = keras.Input((None, None, 3))
    output = model.quantizer(model.encoder(inputs))
    whole = keras.Model(inputs, model.decoder(output["quantized"]))
    images = networks.images(2, 8, 8, 3)
    np.testing.assert_allclose(whole(images), model(images), atol=1e-6)


# Losses


def test_weights_of_the_losses():
    images = networks.images(8, 8, 8, 3)
    logs = []
    for arguments in (
        {},
        {"commitment_weight": 2.0, "codebook_weight": 3.0},
    ):
        keras.utils.set_random_seed(0)
        model = _model(quantizer=VectorQuantizer(8, 4), **arguments)
        model.adapt(images)
        model.compile()
        logs.append(model.evaluate(images, verbose=0, return_dict=True))
    first, second = logs
    for log, commitment, codebook in ((first, 0.25, 1.0), (second, 2.0, 3.0)):
        assert log["loss"] == pytest.approx(
            log["reconstruction_loss"]
            + commitment * log["commitment_loss"]
            + codebook * log["codebook_loss"],
            rel=1e-5,
        )
    assert first["commitment_loss"] == pytest.approx(second["commitment_loss"])


@pytest.mark.parametrize("loss", ["l1", "gaussian", "discretized_logistic"])
def test_reconstruction_losses_train_and_load(loss, tmp_path):
    model = _model(reconstruction_loss=loss)
    model.compile(keras.optimizers.Adam(1e-2))
    images = networks.images(16, 8, 8, 3)
    history = model.fit(images, batch_size=8, epochs=4, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    if loss == "discretized_logistic":
        scale = model.reconstruction_loss.trainable_variables
        assert len(scale) == 1
        assert scale[0].path in {v.path for v in model.trainable_variables}
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    want = model.evaluate(images, verbose=0)
    assert loaded.evaluate(images, verbose=0) == pytest.approx(want, rel=1e-5)
