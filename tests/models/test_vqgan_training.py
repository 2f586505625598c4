"""What `compile` and `fit` of a VQGAN take, keep, save and refuse."""

import h5py
import keras
import networks
import numpy as np
import pytest
import tensorflow as tf
from replicas import compile_model, number
from test_vqgan_phases import CRITIC, GENERATOR, IMAGES, changed, state

from keras_vq.callbacks import NonFiniteSteps, ResumableCheckpoint
from keras_vq.layers import EMAVectorQuantizer
from keras_vq.losses import AdversarialTraining
from keras_vq.models import VQGAN, Discriminator, PatchGAN
from keras_vq.trainers.optimizer_pair import OptimizerPair

SGD, Adam = keras.optimizers.SGD, keras.optimizers.Adam
LossScale = keras.optimizers.LossScaleOptimizer


def _model(adversarial=None, **arguments):
    return networks.vqgan(adversarial, **arguments)


def _compiled(model, optimizer=None, **arguments):
    # Step by step: a graph would take longer.
    arguments = {"run_eagerly": True, **arguments}
    return compile_model(
        model, optimizer or SGD(1e-2, momentum=0.9), **arguments
    )


def _fit(model, steps=1, **arguments):
    data = tf.data.Dataset.from_tensors(IMAGES).repeat(steps)
    return model.fit(data, verbose=0, **arguments)


# The optimizers


def test_optimizers_of_both_networks():
    model = _model()
    mine = Adam(1e-3), SGD(0.1, momentum=0.9)
    model.compile(mine[0], discriminator_optimizer=mine[1], run_eagerly=True)
    pair = model.optimizer
    assert isinstance(pair, OptimizerPair)
    assert (pair.generator, pair.discriminator) == mine
    ours, theirs = (
        {id(v) for v in variables}
        for _, variables in model.optimizer_groups.values()
    )
    assert theirs == {id(v) for v in model.discriminator.trainable_variables}
    assert not ours & theirs
    assert ours | theirs == {id(v) for v in model.trainable_variables}
    # Two slots of Adam and one of momentum; rate and iterations of each.
    slots = 2 * len(ours) + len(theirs)
    assert len(pair.variables) == slots + 4
    with pytest.raises(NotImplementedError, match="optimizer.generator"):
        pair.apply([], [])
    _fit(model)
    # Compiling again goes on with them, in the pair or one by one.
    model.compile(pair, run_eagerly=True)
    _fit(model)
    model.compile(mine[0], discriminator_optimizer=mine[1], run_eagerly=True)
    _fit(model)
    assert [number(o.iterations) for o in mine] == [3, 3]


def test_callbacks_change_the_generators_learning_rate():
    model = _compiled(_model(), SGD(0.5))
    schedule = keras.callbacks.LearningRateScheduler(lambda _, rate: rate / 2)
    history = _fit(model, epochs=2, callbacks=[schedule]).history
    np.testing.assert_allclose(history["learning_rate"], [0.25, 0.125])
    pair = model.optimizer
    assert number(pair.generator.learning_rate) == 0.125
    assert number(pair.discriminator.learning_rate) == 0.5


def test_both_are_scaled_in_float16():
    model = _model(dtype="mixed_float16")
    _compiled(model)
    pair = model.optimizer
    assert isinstance(pair.generator, LossScale)
    assert isinstance(pair.discriminator, LossScale)
    model.compile(pair)
    assert isinstance(model.optimizer.generator.inner_optimizer, SGD)
    assert isinstance(model.optimizer.discriminator.inner_optimizer, SGD)
    _compiled(model, auto_scale_loss=False)
    assert isinstance(model.optimizer.generator, SGD)
    assert isinstance(model.optimizer.discriminator, SGD)


@pytest.mark.filterwarnings("error:.*skipped")
def test_too_large_scales_are_found_by_themselves():
    """Those of the penalty's own gradients, which overflow first, too."""
    model = _model({"r1_weight": 1.0}, dtype="mixed_float16")
    optimizers = [LossScale(SGD(1e-3), initial_scale=2.0**26) for _ in "ab"]
    model.compile(
        optimizers[0], discriminator_optimizer=optimizers[1], run_eagerly=True
    )
    model.adapt(IMAGES)
    watch = NonFiniteSteps(max_in_a_row=2)
    _fit(model, 14, callbacks=[watch])
    skipped = number(model.skipped_steps)
    assert 0 < skipped < 14 and watch.skipped == {"loss_scale": skipped}
    for optimizer in optimizers:
        assert number(optimizer.dynamic_scale) < 2.0**26
        assert number(optimizer.iterations) == 14 - skipped


def test_optimizer_that_replaces_weights_cannot_be_resumed(tmp_path):
    model = _model()
    model.compile("sgd", discriminator_optimizer=SGD(0.1, use_ema=True))
    with pytest.raises(ValueError, match="weight_ema"):
        _fit(model, callbacks=[ResumableCheckpoint(tmp_path)])


@pytest.mark.parametrize(
    "critic, arguments, message",
    [
        ("batch", {}, "needs two optimizers.*discriminator_optimizer=None"),
        (None, {"discriminator_optimizer": "sgd"}, "has no discriminator"),
        (
            "batch",
            {
                "optimizer": OptimizerPair(SGD(), SGD()),
                "discriminator_optimizer": "sgd",
            },
            "holds the discriminator's optimizer already.*'sgd'",
        ),
        ("batch", {"loss": "mse", "discriminator_optimizer": "sgd"}, "losses"),
    ],
)
def test_compile_refuses(critic, arguments, message):
    with pytest.raises(ValueError, match=message):
        _model(critic=critic).compile(**arguments)


def test_one_optimizer_for_both_is_refused():
    optimizer = SGD()
    with pytest.raises(ValueError, match="Received: the same SGD twice"):
        _model().compile(optimizer, discriminator_optimizer=optimizer)


# Frozen parts, averages


@pytest.mark.parametrize(
    "frozen, quantizer",
    [
        ("encoder", None),
        ("quantizer", None),
        ("quantizer", EMAVectorQuantizer),
        ("encoder quantizer", None),
        ("encoder quantizer decoder", EMAVectorQuantizer),
        ("discriminator", None),
    ],
)
def test_frozen_parts(frozen, quantizer):
    own = {"quantizer": quantizer(8, 4)} if quantizer else {}
    model = _model(**own)
    model.adapt(IMAGES)
    for name in frozen.split():
        getattr(model, name).trainable = False
    _compiled(model, clipnorm=1.0)
    before = state(model)
    history = _fit(model).history
    assert np.isfinite([v for (v,) in history.values()]).all()
    expected = (GENERATOR | CRITIC) - set(frozen.split())
    if "decoder" in frozen:
        expected -= {"optimizer"}
    if "discriminator" in frozen:
        expected -= {"discriminator_optimizer"}
    assert changed(before, state(model)) == expected
    assert number(model.skipped_steps) == 0


def test_averages_leave_the_discriminator_out():
    model = _compiled(_model(), weight_ema=0.5)
    _fit(model, 2)
    before = state(model)
    with model.averaged_weights():
        swapped = changed(before, state(model))
    assert swapped == {"encoder", "quantizer", "decoder"}
    assert not changed(before, state(model))


# Files


def test_preset_goes_on_with_its_discriminator(tmp_path):
    model = _compiled(_model({"r1_weight": 0.5}))
    _fit(model, 2)
    model.save_to_preset(tmp_path / "preset")
    loaded = VQGAN.from_preset(tmp_path / "preset")
    assert loaded.adversarial == model.adversarial
    assert loaded.perceptual_loss is networks.edge_loss
    for each in (model, loaded):
        _compiled(each, SGD(0.1))
        each.train_on_batch(IMAGES)
    assert number(loaded.steps) == 1 and number(model.steps) == 3
    # Counted in training, and no part of a preset.
    parts = [
        {k: v for k, v in state(m).items() if k != "logit_averages"}
        for m in (model, loaded)
    ]
    assert not changed(*parts)


# Discriminators with start values


def test_discriminator_starts_from_data():
    model = _compiled(_model(critic="act"))
    assert not model.discriminator.initialized
    with pytest.raises(ValueError, match="Call `model.adapt"):
        model.train_on_batch(IMAGES)
    model.adapt(IMAGES)
    assert model.discriminator.initialized
    model.train_on_batch(IMAGES)
    # What has been trained stays, although the codebook starts over.
    before = state(model)
    model.adapt(IMAGES)
    assert changed(before, state(model)) == {"quantizer"}
    other = _compiled(_model(critic="act"))
    _fit(other)
    assert other.discriminator.initialized


@pytest.mark.filterwarnings("error:.*random numbers")
def test_use_needs_no_discriminator_that_has_started():
    model = _compiled(_model(critic="act"))
    model.quantizer.adapt(model.encoder(IMAGES))
    model.encode(IMAGES)
    model.evaluate(IMAGES, verbose=0)
    assert not model.discriminator.initialized


# What is refused


class _Logit(Discriminator):
    """One logit an image, of its mean: a discriminator as a user writes it."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(1)
        self.dense.build((None, 3))

    def call(self, images, training=None):
        return self.dense(keras.ops.mean(images, (1, 2)))


def test_own_discriminator():
    model = _compiled(
        VQGAN(
            8,
            (1, 2),
            1,
            (),
            False,
            latent_channels=4,
            codebook_size=8,
            codebook_dim=4,
            groups=4,
            discriminator=_Logit(),
            adversarial=AdversarialTraining(r1_weight=1.0, lecam_weight=0.1),
            perceptual_loss=None,
        )
    )
    model.adapt(IMAGES)
    before = state(model)
    _fit(model)
    assert changed(before, state(model)) == GENERATOR | CRITIC


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"discriminator": keras.Sequential()},
            r"PatchGAN\(num_layers=2\), or None.*Received: <Sequential",
        ),
        ({"discriminator": "patch"}, "Received: 'patch'"),
        (
            {"discriminator": PatchGAN(4, 1, channels=1)},
            "images of 3 channels.*Received: .*channels=1",
        ),
        ({"adversarial": "hinge"}, "AdversarialTraining.*Received: 'hinge'"),
        ({"perceptual_weight": -1.0}, "Received: perceptual_weight=-1.0"),
        ({"perceptual_loss": "alex"}, "alex"),
        ({"perceptual_loss": "vgg", "channels": 4}, "LPIPS judges.*None, 4"),
        ({"residual_blocks": 0}, "`residual_blocks` must .*=0"),
        ({"channel_multipliers": (1, 1.5)}, r"integers.*\(1, 1.5\)"),
    ],
)
def test_constructor_refuses(arguments, message):
    sizes = {"base_channels": 8, "channel_multipliers": (1,), "groups": 4}
    with pytest.raises(ValueError, match=message):
        VQGAN(**{**sizes, "attention_factors": (), **arguments})


@pytest.mark.parametrize("start", [0, 1000])
def test_images_too_small_for_the_discriminator(start):
    """Said before the first step, not when its time has come."""
    model = _compiled(_model({"discriminator_start": start}))
    model.adapt(IMAGES)
    message = r"6 x 6 pixels or more.*num_layers.*Received: shape \(4, 4, 8"
    images = np.zeros((4, 4, 8, 3), "float32") - 1
    with pytest.raises(ValueError, match=message):
        model.fit(images, verbose=0)
    with pytest.raises(ValueError, match=message):
        model.train_on_batch(images)
    assert number(model.steps) == 0


def test_images_too_small_for_lpips():
    model = _model(perceptual_loss="squeeze", critic=None)
    with pytest.raises(ValueError, match="at least 17 x 17"):
        model._check_sizes(IMAGES)


class _Judge(keras.layers.Layer):
    """A perceptual loss that could learn to find everything alike."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.features = keras.layers.Conv2D(2, 3)

    def call(self, images, reconstruction):
        ours, theirs = self.features(images), self.features(reconstruction)
        return keras.ops.mean(keras.ops.square(ours - theirs), axis=(1, 2, 3))


def test_a_perceptual_loss_does_not_learn():
    judge = _Judge()
    model = _compiled(_model(perceptual_loss=judge))
    before = np.array(judge.features.kernel)
    _fit(model, 2)
    np.testing.assert_array_equal(judge.features.kernel, before)
    names = {w.path for w in model.trainable_variables}
    assert judge.features.kernel.path not in names


class _Late(Discriminator):
    """Makes its variables when it sees the first image."""

    def __init__(self):
        super().__init__()
        self.logits = keras.layers.Conv2D(1, 4)

    def call(self, images):
        return keras.ops.cast(self.logits(images), "float32")


def test_a_discriminator_that_builds_late():
    model = _model(critic=_Late())
    assert len(model.discriminator.trainable_variables) == 2
    before = np.array(model.discriminator.logits.kernel)
    _fit(_compiled(model))
    assert not np.array_equal(model.discriminator.logits.kernel, before)


def test_options_are_fixed():
    model = _model()
    with pytest.raises(AttributeError, match="argument of the model's"):
        model.adversarial = AdversarialTraining(r1_weight=1.0)


def test_what_only_the_discriminator_regularizes_is_not_logged():
    critic = _Logit()
    critic.dense.kernel_regularizer = keras.regularizers.L2(1.0)
    critic.dense.kernel.regularizer = keras.regularizers.L2(1.0)
    assert critic.losses
    assert "regularization_loss" not in _model(critic=critic)._loss_names


def test_files_hold_the_parts_and_nothing_else(tmp_path):
    model = _model()
    model(IMAGES, return_details=True)
    model.save_weights(tmp_path / "a.weights.h5")
    with h5py.File(tmp_path / "a.weights.h5") as file:
        names = set(file)
    assert not [name for name in names if "last_layer" in name], names
