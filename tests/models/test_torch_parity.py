"""The papers' networks, beside PyTorch with the same weights."""

import keras
import networks
import numpy as np
import pytest
import tensorflow as tf
import torch_networks as reference

from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer
from keras_vq.models import VQVAE

torch = reference.torch

SIZES = {"hidden_units": 16, "residual_units": 6, "codebook_size": 32}
NETWORKS = {
    "sonnet": (
        {"codebook_dim": 5},
        reference.sonnet_encoder,
        reference.sonnet_decoder,
    ),
    "kumar": (
        {
            "codebook_dim": 16,
            "bottleneck_convolutions": False,
            "use_batch_normalization": True,
            "output_activation": "tanh",
            "inplace_relu_residual": True,
        },
        reference.kumar_encoder,
        reference.kumar_decoder,
    ),
}


def _pair(name, quantizer_class, channels=3):
    """A model and its PyTorch twin, with random values in all weights."""
    arguments, encoder, decoder = NETWORKS[name]
    dim = arguments["codebook_dim"]
    quantizer = quantizer_class(
        32,
        dim,
        codebook_initializer=keras.initializers.RandomNormal(0, 0.5, seed=3),
        decay=0.8,
        revival_threshold=0,
    )
    model = VQVAE(**SIZES, **arguments, channels=channels, quantizer=quantizer)
    rng = np.random.default_rng(1)
    for weight in model.encoder.weights + model.decoder.weights:
        if weight.name in ("bias", "beta", "moving_mean"):
            weight.assign(rng.normal(0, 0.2, weight.shape))
        elif weight.name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    sizes = (channels, 16, 6, dim)
    twin = reference.Autoencoder(
        reference.copy_to_torch(model.encoder, encoder(*sizes)),
        torch.tensor(np.asarray(quantizer.codebook)).double(),
        reference.copy_to_torch(model.decoder, decoder(*sizes)),
    )
    return model, twin


def _assert_close(got, expected, tolerance=1e-5):
    expected = np.asarray(expected)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, atol=tolerance * scale)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (10, 13), (11, 6)])
@pytest.mark.parametrize("channels", [1, 3])
def test_forward(name, size, channels):
    model, twin = _pair(name, VectorQuantizer, channels)
    images = networks.images(2, *size, channels)
    twin.eval()
    with torch.no_grad():
        latents = twin.encoder(reference.images_to_torch(images))
    latents = reference.images_from_torch(latents)
    assert latents.shape[1:3] == (size[0] // 4, size[1] // 4)
    _assert_close(model.encoder(images), latents)
    # The whole model repeats the last pixels and crops them off again.
    bottom, right = (-size[0] % 4, -size[1] % 4)
    padded = np.pad(images, ((0, 0), (0, bottom), (0, right), (0, 0)), "edge")
    with torch.no_grad():
        output, indices, _, _ = twin(reference.images_to_torch(padded))
    output = reference.images_from_torch(output)[:, : size[0], : size[1]]
    np.testing.assert_array_equal(model.encode(images), indices)
    _assert_close(model(images), output)


@pytest.mark.parametrize("name", NETWORKS)
def test_losses_and_gradients(name):
    model, twin = _pair(name, VectorQuantizer)
    images = networks.images(3, 12, 8, 3)
    with tf.GradientTape() as tape:
        losses = model.generator_losses(images, training=True)["losses"]
        total = model.total_loss(losses)
    gradients = tape.gradient(total, model.trainable_variables)
    paths = [v.path for v in model.trainable_variables]
    gradients = dict(zip(paths, gradients, strict=True))

    _, _, _, expected = twin(reference.images_to_torch(images))
    (
        expected["reconstruction_loss"]
        + 0.25 * expected["commitment_loss"]
        + expected["codebook_loss"]
    ).backward()
    assert set(losses) == set(expected)
    for key, value in expected.items():
        _assert_close(losses[key], value.detach())

    codebook = tf.convert_to_tensor(gradients[model.quantizer.codebook.path])
    _assert_close(codebook, twin.codebook.grad)
    checked = 1
    for part in ("encoder", "decoder"):
        pairs = zip(
            reference.leaves(getattr(model, part)),
            reference.torch_leaves(getattr(twin, part)),
            strict=True,
        )
        # The bias before a batch normalization has no effect: its gradient
        # is zero but for rounding, and has no scale of its own.
        scale = max(
            p.grad.abs().max() for p in getattr(twin, part).parameters()
        )
        for layer, module in pairs:
            for variable, parameter in zip(
                layer.trainable_variables,
                (module.weight, module.bias),
                strict=True,
            ):
                want = parameter.grad.numpy()
                if want.ndim == 4:
                    want = reference.to_keras(want)
                np.testing.assert_allclose(
                    gradients[variable.path],
                    want,
                    rtol=2e-5,
                    atol=1e-5 * float(scale),
                )
                checked += 1
    assert checked == len(model.trainable_variables)


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_with_a_moving_average_codebook(name):
    """Three steps of SGD, the codebook updated as in the papers."""
    model, twin = _pair(name, EMAVectorQuantizer)
    model.compile(keras.optimizers.SGD(0.05))
    parameters = [*twin.encoder.parameters(), *twin.decoder.parameters()]
    optimizer = torch.optim.SGD(parameters, 0.05)
    counts = torch.ones(32).double()
    sums = twin.codebook.data.clone()
    for step in range(3):
        images = networks.images(3, 8, 8, 3, seed=step)
        logs = model.train_on_batch(images, return_dict=True)
        _, indices, flat, losses = twin(reference.images_to_torch(images))
        total = losses["reconstruction_loss"] + 0.25 * losses["commitment_loss"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        one_hot = torch.nn.functional.one_hot(indices.flatten(), 32).double()
        counts = 0.8 * counts + 0.2 * one_hot.sum(0)
        sums = 0.8 * sums + 0.2 * (one_hot.T @ flat.detach())
        smoothed = (counts + 1e-5) / (counts.sum() + 32e-5) * counts.sum()
        twin.codebook.data = sums / smoothed[:, None]
        model.reset_metrics()
        _assert_close(logs["loss"], total.detach())
    _assert_close(model.quantizer.counts, counts)
    _assert_close(model.quantizer.sums, sums)
    _assert_close(model.quantizer.codebook, twin.codebook.detach(), 1e-4)
    for part in ("encoder", "decoder"):
        for layer, module in zip(
            reference.leaves(getattr(model, part)),
            reference.torch_leaves(getattr(twin, part)),
            strict=True,
        ):
            want = module.weight.detach().numpy()
            kernel = want.ndim == 4
            _assert_close(
                layer.kernel if kernel else layer.gamma,
                reference.to_keras(want) if kernel else want,
                1e-4,
            )
            if not kernel:
                _assert_close(layer.moving_mean, module.running_mean, 1e-4)
