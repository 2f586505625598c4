"""VQ-VAE-2, beside PyTorch with the same weights."""

import keras
import networks
import numpy as np
import pytest
import tensorflow as tf
import torch_networks as reference
import torch_vqvae2 as hierarchy

from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer
from keras_vq.models import VQVAE2

torch = reference.torch

CASES = {
    "two levels, as published": ((4, 2), 4, True),
    "two levels": ((4, 2), 4, False),
    "three levels, the paper's filters": ((8, 2, 2), 3, False),
    "three levels, other strides": ((2, 4, 2), 3, True),
    "one level": ((4,), 4, False),
}
parametrize = pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))


def _pair(case, quantizer_class, **arguments):
    """A model and its PyTorch twin, with random values in all weights."""
    factors, kernel, inplace = case
    quantizers = [
        quantizer_class(
            32,
            5,
            # Random latents of each level, so that many codes are in use.
            codebook_initializer="data",
            decay=0.8,
            revival_threshold=0,
        )
        for _ in factors
    ]
    model = VQVAE2(
        factors,
        hidden_units=16,
        residual_units=6,
        codebook_dim=5,
        quantizers=quantizers,
        encoder_kernel_size=kernel,
        inplace_relu_residual=inplace,
        **arguments,
    )
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        if weight.name == "bias":
            weight.assign(rng.normal(0, 0.2, weight.shape))
    model.adapt(networks.images(4, 64, 32, 3, seed=9))
    for quantizer in model.quantizer.levels():
        # Far enough from the latents: differences of like numbers are noise.
        codes = np.asarray(quantizer.codebook)
        noise = rng.normal(0, 0.4, codes.shape) * codes.std(axis=0)
        quantizer._restart(codes + noise)
    twin = hierarchy.Hierarchy(factors, 16, 6, 5, 32, kernel, inplace)
    return model, hierarchy.copy_weights(model, twin)


def _assert_close(got, expected, tolerance=3e-5):
    expected = np.asarray(expected)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(got, expected, atol=tolerance * scale)


@parametrize
@pytest.mark.parametrize("size", [(64, 32), (35, 50)])
def test_forward(case, size):
    model, twin = _pair(case, VectorQuantizer)
    images = networks.images(2, *size, 3)
    # The whole model repeats the last pixels and crops them off again.
    factor = model.downsample_factor
    assert factor == np.prod(case[0])
    bottom, right = (-size[0] % factor, -size[1] % factor)
    padded = np.pad(images, ((0, 0), (0, bottom), (0, right), (0, 0)), "edge")
    with torch.no_grad():
        output, indices, _, _ = twin(reference.images_to_torch(padded))
    output = reference.images_from_torch(output)[:, : size[0], : size[1]]
    for got, want in zip(model.encode(images), indices, strict=True):
        np.testing.assert_array_equal(got, want)
        assert len(np.unique(want)) >= 2
    _assert_close(model(images), output)
    decoded = np.asarray(model.decode(model.encode(images)))
    _assert_close(decoded[:, : size[0], : size[1]], output)


@parametrize
@pytest.mark.parametrize("checkpointing", [False, True])
def test_losses_and_gradients(case, checkpointing):
    model, twin = _pair(
        case, VectorQuantizer, gradient_checkpointing=checkpointing
    )
    images = networks.images(3, 64, 32, 3)
    with tf.GradientTape() as tape:
        losses = model.generator_losses(images, training=True)["losses"]
        total = model.total_loss(losses)
    variables = model.trainable_variables
    gradients = dict(
        zip(
            [v.path for v in variables],
            tape.gradient(total, variables),
            strict=True,
        )
    )
    _, _, _, expected = twin(reference.images_to_torch(images))
    (
        expected["reconstruction_loss"]
        + 0.25 * expected["commitment_loss"]
        + expected["codebook_loss"]
    ).backward()
    assert set(losses) == set(expected)
    for key, value in expected.items():
        _assert_close(losses[key], value.detach())
    levels = reversed(model.quantizer.levels())
    for quantizer, codes in zip(levels, twin.codebooks, strict=True):
        gradient = tf.convert_to_tensor(gradients[quantizer.codebook.path])
        _assert_close(gradient, codes.grad)
    pairs = hierarchy.paired_leaves(model, twin)
    for layer, module in pairs:
        kernel = reference.to_keras(module.weight.grad)
        _assert_close(gradients[layer.kernel.path], kernel)
        _assert_close(gradients[layer.bias.path], module.bias.grad)
    assert 2 * len(pairs) + len(case[0]) == len(variables)


@parametrize
def test_steps_with_moving_average_codebooks(case):
    """Two steps of SGD, the codebooks updated as in the paper."""
    model, twin = _pair(case, EMAVectorQuantizer)
    model.compile(keras.optimizers.SGD(0.05))
    parameters = [p for n, p in twin.named_parameters() if "codebooks" not in n]
    optimizer = torch.optim.SGD(parameters, 0.05)
    levels = model.quantizer.levels()
    codebooks = list(reversed(list(twin.codebooks)))
    counts = [torch.ones(32).double() for _ in levels]
    sums = [codes.data.clone() for codes in codebooks]
    for step in range(2):
        images = networks.images(3, 64, 32, 3, seed=step)
        logs = model.train_on_batch(images, return_dict=True)
        _, indices, flats, losses = twin(reference.images_to_torch(images))
        total = losses["reconstruction_loss"] + 0.25 * losses["commitment_loss"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        for i, (found, flat) in enumerate(zip(indices, flats, strict=True)):
            one_hot = torch.nn.functional.one_hot(found.flatten(), 32).double()
            counts[i] = 0.8 * counts[i] + 0.2 * one_hot.sum(0)
            sums[i] = 0.8 * sums[i] + 0.2 * (one_hot.T @ flat.detach())
            total_count = counts[i].sum()
            smoothed = (counts[i] + 1e-5) / (total_count + 32e-5) * total_count
            codebooks[i].data = sums[i] / smoothed[:, None]
        model.reset_metrics()
        _assert_close(logs["loss"], total.detach())
    for i, quantizer in enumerate(levels):
        _assert_close(quantizer.counts, counts[i])
        _assert_close(quantizer.sums, sums[i])
        _assert_close(quantizer.codebook, codebooks[i].detach(), 1e-4)
    for layer, module in hierarchy.paired_leaves(model, twin):
        want = reference.to_keras(module.weight.detach())
        _assert_close(layer.kernel, want, 1e-4)
