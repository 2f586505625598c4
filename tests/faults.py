"""A model that computes NaN or infinity where the images ask for it.

The first value of an image names the fault: so it can be put into any image of
any batch, on any replica or micro-batch, without another graph.
"""

import contextlib
from unittest import mock

import keras
import networks
import numpy as np
from feeding import batches
from keras import layers, ops
from networks import decoder, images
from replicas import compile_model, values, variables

from keras_vq.layers import EMAVectorQuantizer
from keras_vq.models import VQVAE2, PatchGAN, VQAutoencoder, vqvae2
from keras_vq.models.vqgan_networks import VQGANNetworks

# Values that no image has, exact in all policies.
LOSS, GRADIENT, LATENTS, STATISTICS, HUGE = 2.0, 3.0, 4.0, 5.0, 6.0
LOGITS, OPPOSED = 7.0, 8.0
FAULTS = {
    "loss": LOSS,
    "gradient": GRADIENT,
    "latents": LATENTS,
    "statistics": STATISTICS,
    # Its square overflows, and Adam would never forget it.
    "huge gradient": HUGE,
    "NaN image": np.nan,
    "infinite image": np.inf,
}
# Of the discriminator, in real images.
CRITIC_FAULTS = {"logits": LOGITS, "discriminator gradient": OPPOSED}
# Features that mark their batch for the quantizer, and how large no other
# latent is; between the two there may be a projection.
_MARK, _MARKED = 96.0, 24.0


@ops.custom_gradient
def _faulty_gradient(x, code):
    def gradient(*arguments, upstream=None):
        (upstream,) = arguments or (upstream,)
        # Of float32, because nothing large exists in float16.
        factor = ops.where(code == GRADIENT, np.float32(np.nan), 1.0)
        factor = ops.where(code == HUGE, np.float32(1e30), factor)
        factor = ops.cast(factor, upstream.dtype)
        return upstream * factor, ops.zeros_like(code)

    return x + 0, gradient


@keras.saving.register_keras_serializable(package="keras_vq_tests")
class FaultyEncoder(layers.Layer):
    """Convolutions and batch normalization, and the faults.

    Args:
        network: Another network, which has the faults instead; of several
            levels the coarsest, which is normalized, too.
    """

    def __init__(self, network=None, **kwargs):
        super().__init__(**kwargs)
        dtype = self.dtype_policy
        self.network = network or keras.Sequential(
            [
                keras.Input((None, None, 3)),
                layers.Conv2D(8, 4, 2, "same", dtype=dtype),
                layers.BatchNormalization(dtype=dtype),
                layers.LeakyReLU(dtype=dtype),
                layers.Conv2D(4, 4, 2, "same", dtype=dtype),
            ]
        )
        self.normalization = layers.BatchNormalization(dtype=dtype)

    def call(self, inputs, training=None):
        code = inputs[:, :1, :1, :1]
        x = self.network(_unmarked(inputs), training=training)
        if isinstance(x, (list, tuple)):
            coarsest = self.normalization(x[0], training=training)
            return [self._faulty(coarsest, code), *x[1:]]
        return self._faulty(x, code)

    def _faulty(self, x, code):
        x = _faulty_gradient(x, ops.cast(code, "float32"))
        x = ops.where(code == STATISTICS, ops.cast(_MARK, x.dtype), x)
        return ops.where(code == LATENTS, ops.cast(np.inf, x.dtype), x)


def _unmarked(inputs):
    """Images without the faults that are no numbers of their own."""
    code = inputs[:, :1, :1, :1]
    marked = ops.logical_and(code > 1.5, code < 10.0)
    return ops.where(marked, ops.zeros_like(inputs), inputs)


@keras.saving.register_keras_serializable(package="keras_vq_tests")
class FaultyPatchGAN(PatchGAN):
    """A discriminator with faults of its own."""

    def call(self, images, training=None):
        code = ops.cast(images[:, :1, :1, :1], "float32")
        x = super().call(_unmarked(images), training=training)
        opposed = ops.where(code == OPPOSED, GRADIENT, 0.0)
        x = _faulty_gradient(x, opposed)
        return ops.where(code == LOGITS, np.inf, x)


@keras.saving.register_keras_serializable(package="keras_vq_tests")
class FaultyQuantizer(EMAVectorQuantizer):
    """Its statistics are not finite where a latent asks for it."""

    def _statistics(self, vectors, indices, valid):
        statistics = super()._statistics(vectors, indices, valid)
        marked = ops.any(ops.abs(vectors) > _MARKED)
        return {k: ops.where(marked, np.inf, v) for k, v in statistics.items()}


@keras.saving.register_keras_serializable(package="keras_vq_tests")
def faulty_loss(images, reconstruction):
    error = ops.square(images - ops.cast(reconstruction, "float32"))
    fault = ops.where(images[:, 0, 0, 0] == LOSS, np.nan, 0.0)
    return ops.mean(error, axis=(1, 2, 3)) + fault


def _autoencoder(quantizer, dtype):
    return VQAutoencoder(
        FaultyEncoder(dtype=dtype),
        quantizer,
        decoder(dtype=dtype),
        reconstruction_loss=faulty_loss,
        dtype=dtype,
    )


def _vqgan(quantizer, dtype):
    """A VQGAN, its encoder and discriminator with the faults."""
    encoder = VQGANNetworks.encoder
    critic = FaultyPatchGAN(4, 1, dtype=dtype, use_spectral_normalization=True)
    with mock.patch.object(
        VQGANNetworks,
        "encoder",
        lambda self: FaultyEncoder(encoder(self), dtype=dtype),
    ):
        return networks.vqgan(
            {"r1_weight": 0.1, "lecam_weight": 0.1},
            critic,
            quantizer=quantizer,
            reconstruction_loss=faulty_loss,
            dtype=dtype,
        )


def _vqvae2(quantizer, dtype):
    """A VQ-VAE-2, its coarsest level with the faults."""
    encoder = vqvae2._Hierarchy.encoder
    with mock.patch.object(
        vqvae2._Hierarchy,
        "encoder",
        lambda self, channels: FaultyEncoder(
            encoder(self, channels), dtype=dtype
        ),
    ):
        fine = EMAVectorQuantizer.from_config(
            {**quantizer.get_config(), "name": "fine"}
        )
        return VQVAE2(
            downsample_factors=(2, 2),
            hidden_units=8,
            residual_units=4,
            codebook_dim=4,
            quantizers=[quantizer, fine],
            reconstruction_loss=faulty_loss,
            dtype=dtype,
        )


KINDS = {"autoencoder": _autoencoder, "vqvae2": _vqvae2, "vqgan": _vqgan}


def make(strategy=None, dtype=None, kind="autoencoder", **arguments):
    """The model, compiled, and its codebook started."""
    keras.utils.set_random_seed(0)
    with strategy.scope() if strategy else contextlib.nullcontext():
        quantizer = FaultyQuantizer(
            8, 4, decay=0.5, revival_threshold=0.3, dtype=dtype
        )
        model = KINDS[kind](quantizer, dtype)
        optimizer = keras.optimizers.AdamW(1e-2, weight_decay=0.1)
        if dtype == "mixed_float16":
            # Small enough to overflow only where a test wants it.
            optimizer = keras.optimizers.LossScaleOptimizer(
                optimizer, initial_scale=2.0**8
            )
        compile_model(model, optimizer, weight_ema=0.9, **arguments)
    model.adapt(images(8, 8, 8, 3, seed=99))
    return model


def batch(seed, fault=None, image=0):
    """Eight images, one of which has the fault."""
    data = images(8, 8, 8, 3, seed=seed)
    if fault is not None:
        data[image, 0, 0, 0] = {**FAULTS, **CRITIC_FAULTS}[fault]
    return data


def fit(model, *steps, **arguments):
    """Trains one step on each batch."""
    dataset = batches(np.concatenate(steps), size=len(steps[0]))
    # In this order also where it is no `tf.data.Dataset`.
    return model.fit(dataset, shuffle=False, verbose=0, **arguments)


def snapshot(model, counters=False):
    """Values of all variables, but for the counters of skipped steps."""
    state = {id(v) for v in model.training_state if v.dtype == "int32"}
    return {
        f"{i} {v.path}": value
        for i, (v, value) in enumerate(
            zip(variables(model), values(model), strict=True)
        )
        if (counters or id(v) not in state)
    }


def restore(model, state):
    """Puts the values of `snapshot(model, counters=True)` back."""
    for variable, value in zip(variables(model), state.values(), strict=True):
        variable.assign(value)


def assert_equal(state, expected, but=()):
    """All values are finite, and equal bit for bit."""
    names = set()
    for (name, got), want in zip(state.items(), expected.values(), strict=True):
        assert np.isfinite(got).all(), name
        names.add(name.split("/")[-1].split(" ")[-1])
        if not name.endswith(but):
            np.testing.assert_array_equal(got, want, err_msg=name)
    for name in ("moving_variance", "average_count", "iteration", "codebook"):
        assert name in names
