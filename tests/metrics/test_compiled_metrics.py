"""The metrics within the training of a model, on one device and on two."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_vq
from keras_vq import metrics


def dataset(with_labels):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (14, 16, 16, 3)).astype("float32")
    data = (images, np.arange(14)) if with_labels else images
    # The last batch has two images, one for each of two replicas.
    return images, tf.data.Dataset.from_tensor_slices(data).batch(4)


def compiled_model(loss="gaussian"):
    keras.utils.set_random_seed(0)
    model = keras_vq.models.VQVAE(
        hidden_units=4,
        residual_units=2,
        codebook_size=16,
        codebook_dim=4,
        reconstruction_loss=loss,
    )
    model.compile(
        keras.optimizers.SGD(0.01),
        metrics=[metrics.PSNR(), metrics.SSIM(), metrics.BitsPerDim()],
    )
    return model


def learned():
    return keras_vq.losses.DiscretizedLogisticNLL(0.2, learn_scale=True)


@pytest.mark.parametrize("with_labels", [False, True])
def test_two_replicas_log_what_one_device_logs(with_labels, two_replicas):
    _, data = dataset(with_labels)
    single = compiled_model().fit(data, epochs=2, verbose=0).history
    with two_replicas.scope():
        model = compiled_model()
    mirrored = model.fit(data, epochs=2, verbose=0).history
    assert {"psnr", "ssim", "bits_per_dim", "perplexity"} <= set(single)
    for name, values in single.items():
        np.testing.assert_allclose(
            mirrored[name], values, rtol=1e-4, err_msg=name
        )


def test_a_loaded_model_measures_with_its_learned_scale(tmp_path):
    images, data = dataset(False)
    model = compiled_model(learned())
    model.fit(data, epochs=2, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    copy = keras.saving.load_model(path)
    scores = [
        m.evaluate(data, verbose=0, return_dict=True) for m in (model, copy)
    ]
    assert scores[0] == scores[1]
    nats = copy.reconstruction_loss(images, copy(images))
    np.testing.assert_allclose(
        scores[1]["bits_per_dim"], np.mean(nats) / np.log(2), rtol=1e-5
    )
    scale = copy.reconstruction_loss.trainable_weights[0]
    assert abs(float(scale) - np.log(0.2)) > 1e-5
    scale.assign(scale + 1.0)
    later = copy.evaluate(data, verbose=0, return_dict=True)
    assert later["bits_per_dim"] != scores[1]["bits_per_dim"]


def test_bits_per_dim_needs_a_likelihood():
    with pytest.raises(ValueError, match="need a likelihood"):
        compiled_model("mse")
