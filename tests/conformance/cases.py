"""Every quantizer and every model, one line each.

Each line goes through the whole list of tests of this folder. A new class is
one file and one line here.
"""

import dataclasses
import functools
from collections.abc import Callable

import keras
import networks
import numpy as np
import pytest
from numpy_reference import MovingAverageReference, NearestCodeReference

from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer
from keras_vq.models import VQVAE, VQAutoencoder


@dataclasses.dataclass(frozen=True)
class QuantizerCase:
    """A quantizer of latents with `channels` channels.

    `arguments` are added to those that a test asks for; `reference` is the
    NumPy class that says what it must compute; `losses` names its terms.
    """

    name: str
    quantizer: type
    reference: type
    losses: tuple
    channels: int = 4
    arguments: dict = dataclasses.field(default_factory=dict)

    def make(self, **overrides):
        """The quantizer, built, with codes that are far apart."""
        arguments = {
            "codebook_size": 16,
            "codebook_dim": 4,
            "codebook_initializer": keras.initializers.RandomNormal(
                stddev=1.0, seed=1
            ),
            **self.arguments,
            **overrides,
        }
        quantizer = self.quantizer(**arguments)
        keras.utils.set_random_seed(2)  # of the projections
        quantizer.build((None, None, self.channels))
        return quantizer

    def latents(self, *sides, seed=0):
        rng = np.random.default_rng(seed)
        return rng.normal(size=(*sides, self.channels)).astype("float32")


_LEARNED = (VectorQuantizer, NearestCodeReference, ("commitment", "codebook"))
_AVERAGED = (EMAVectorQuantizer, MovingAverageReference, ("commitment",))
_COSINE = {"l2_normalize": True}
_LOW = {"codebook_dim": 3}

QUANTIZERS = [
    QuantizerCase("vq", *_LEARNED),
    QuantizerCase("vq-cosine", *_LEARNED, arguments=_COSINE),
    QuantizerCase("vq-projected", *_LEARNED, channels=6, arguments=_LOW),
    QuantizerCase("ema", *_AVERAGED),
    QuantizerCase("ema-cosine", *_AVERAGED, arguments=_COSINE),
    QuantizerCase("ema-projected", *_AVERAGED, channels=6, arguments=_LOW),
    QuantizerCase(
        "ema-projected-cosine",
        *_AVERAGED,
        channels=6,
        arguments={**_LOW, **_COSINE},
    ),
]


@dataclasses.dataclass(frozen=True)
class ModelCase:
    """A model of images of `channels` channels.

    `make(dtype=None)` returns it, `downsample_factor` is what it must find.
    """

    name: str
    make: Callable
    channels: int = 3
    downsample_factor: int = 4
    # Positions of codes along a side, by level, for one of the coarsest.
    scales: tuple = (1,)
    # No side of an image may be smaller.
    smallest_side: int = 1
    # Where the forward pass couples the images of a batch, accumulation is
    # another computation.
    couples_images: bool = False
    # Random layers differ between replicas, and between graphs.
    random: bool = False
    # What is minimized beside the quantizer's losses, in NumPy: values of
    # the difference of images and reconstruction, of which the mean counts.
    distances: dict = dataclasses.field(
        default_factory=lambda: {"reconstruction_loss": np.square}
    )
    # Logged in training alone.
    adversarial_terms: frozenset = frozenset()
    # Whether its graphs are too slow to make for each compiler and policy, or
    # for what a shorter test shows as well.
    slow: bool = False
    # Whether only `make soak` runs this line, for the time that it takes.
    soak: bool = False
    # Of three steps each, after which the loss has fallen.
    epochs: int = 12
    # Steps that the autoencoder does not take part in.
    pretraining_steps: int = 0

    @property
    def side(self):
        """Pixels of a side that every part of the model can take."""
        return max(2 * self.downsample_factor, 8)

    def images(self, *sides, seed=0):
        return networks.images(*sides, self.channels, seed=seed)

    def grids(self, rows, columns):
        """Sizes of the maps of codes, by level."""
        return [(rows * scale, columns * scale) for scale in self.scales]

    def log_names(self, name):
        """Names of a metric of codes in the logs, by level."""
        if len(self.scales) == 1:
            return [name]
        return [f"{name}_level_{i + 1}" for i in range(len(self.scales))]


def _vqvae(**arguments):
    sizes = {"hidden_units": 8, "residual_units": 4, "codebook_size": 8}

    def make(dtype=None):
        return VQVAE(**{**sizes, "codebook_dim": 4, **arguments}, dtype=dtype)

    return make


def _vqvae2(**arguments):
    return functools.partial(networks.vqvae2, **arguments)


_PAPER = {"bottleneck_convolutions": False, "codebook_dim": 8}
_KUMAR = {
    **_PAPER,
    "use_batch_normalization": True,
    "output_activation": "tanh",
    "inplace_relu_residual": True,
}


def _functional(dtype=None):
    return VQAutoencoder(
        networks.encoder(dtype=dtype),
        VectorQuantizer(8, 4, dtype=dtype),
        networks.decoder(dtype=dtype),
        dtype=dtype,
    )


def _subclassed(dtype=None):
    return VQAutoencoder(
        networks.DropoutEncoder(dtype=dtype),
        EMAVectorQuantizer(8, 4, l2_normalize=True, dtype=dtype),
        networks.decoder(dtype=dtype),
        dtype=dtype,
    )


def _vqgan(adversarial=None, **arguments):
    def make(dtype=None):
        quantizer = arguments.get("quantizer")
        own = {"quantizer": quantizer(8, 4, dtype=dtype)} if quantizer else {}
        return networks.vqgan(adversarial, **{**arguments, **own}, dtype=dtype)

    return make


_GAN = {
    "downsample_factor": 2,
    "distances": {
        "reconstruction_loss": np.abs,
        "perceptual_loss": lambda d: np.abs(np.diff(d, axis=1)),
    },
}
_TERMS = frozenset(
    "generator_loss discriminator_loss adaptive_weight discriminator_accuracy "
    "real_logits fake_logits".split()
)
_PENALTIES = frozenset(["r1_penalty", "lecam_penalty"])
# So few steps that every test passes through all phases.
_PHASES = {"discriminator_start": 1, "pretraining_steps": 1, "warmup_steps": 2}

MODELS = [
    ModelCase("vqvae", _vqvae()),
    ModelCase("vqvae-grey-paper", _vqvae(channels=1, **_PAPER), channels=1),
    ModelCase("vqvae-kumar", _vqvae(**_KUMAR), couples_images=True),
    ModelCase(
        "vqvae-five-channels-factor-8",
        _vqvae(channels=5, downsample_factor=8, share_residual_blocks=True),
        channels=5,
        downsample_factor=8,
        soak=True,
    ),
    ModelCase(
        "vqvae2",
        _vqvae2(),
        scales=(1, 2),
        smallest_side=4,
    ),
    ModelCase(
        "vqvae2-three-levels-checkpointed-grey",
        _vqvae2(
            downsample_factors=(2, 2, 2),
            channels=1,
            gradient_checkpointing=True,
        ),
        channels=1,
        downsample_factor=8,
        scales=(1, 2, 4),
        smallest_side=8,
        epochs=40,
        soak=True,
    ),
    ModelCase("functional", _functional),
    ModelCase("subclassed-dropout", _subclassed, random=True),
    ModelCase(
        "vqgan",
        _vqgan(_PHASES, attention_factors=(2,)),
        couples_images=True,
        slow=True,
        adversarial_terms=_TERMS,
        pretraining_steps=1,
        **_GAN,
    ),
    # The adaptive weight, of each micro-batch its own, has a test elsewhere.
    ModelCase(
        "vqgan-regularized",
        _vqgan(
            {
                "adaptive_weight": False,
                # So small that the images still count at the rate of `fit`.
                "weight": 0.01,
                "r1_weight": 1.0,
                "lecam_weight": 0.1,
            },
            critic="group",
            quantizer=EMAVectorQuantizer,
        ),
        soak=True,
        adversarial_terms=_TERMS | _PENALTIES,
        **_GAN,
    ),
    ModelCase(
        "vqgan-without-discriminator-grey",
        _vqgan(critic=None, channels=1),
        channels=1,
        soak=True,
        **_GAN,
    ),
]


def levels(codes):
    """The maps of codes of all levels, also of a model that has one."""
    return codes if isinstance(codes, list) else [codes]


def parametrize(cases, slow_in_soak=False):
    """Runs a test, or a fixture, once for each line of a table.

    Args:
        cases: The lines.
        slow_in_soak: Whether only `make soak` runs the slow ones, because
            `make test` shows the same of them in another place. Those places
            are of TensorFlow, and `make test-jax` runs the lines here.
    """
    slow_in_soak = slow_in_soak and keras.backend.backend() == "tensorflow"
    lines = []
    for case in cases:
        long = getattr(case, "soak", False)
        long = long or slow_in_soak and getattr(case, "slow", False)
        marks = [pytest.mark.soak] if long else []
        lines.append(pytest.param(case, id=case.name, marks=marks))
    return pytest.mark.parametrize("case", lines)
