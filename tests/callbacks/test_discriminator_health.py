import keras
import networks
import pytest

from keras_vq.callbacks import DiscriminatorHealth
from keras_vq.losses import AdversarialTraining
from keras_vq.models import VQGAN, VQVAE, PatchGAN


def _model(**adversarial):
    keras.utils.set_random_seed(0)
    return VQGAN(
        base_channels=4,
        channel_multipliers=(1, 1),
        residual_blocks=1,
        attention_factors=(),
        middle_attention=False,
        latent_channels=4,
        codebook_size=8,
        codebook_dim=4,
        groups=2,
        discriminator=PatchGAN(filters=4, num_layers=1, normalization=None),
        adversarial=AdversarialTraining(**adversarial),
        perceptual_loss=None,
    )


def _fit(model, generator=0.0, discriminator=0.0, epochs=4, **health):
    """Trains with the given learning rates; 0 leaves a network as it is."""
    model.compile(
        keras.optimizers.SGD(generator),
        discriminator_optimizer=keras.optimizers.SGD(discriminator),
    )
    watch = DiscriminatorHealth(patience=2, **health)
    images = networks.images(8, 16, 16, 3)
    model.fit(images, batch_size=4, epochs=epochs, verbose=0, callbacks=[watch])
    return watch


def _messages(record):
    messages = [str(w.message) for w in record]
    return [m for m in messages if m.startswith("Adversarial training")]


def test_a_discriminator_that_tells_nothing():
    model = _model(max_adaptive_weight=10)
    for weight in model.discriminator.weights:
        weight.assign(keras.ops.zeros_like(weight))
    with pytest.warns(UserWarning) as record:
        watch = _fit(model)
    # Its gradient is zero, so the weight is at its limit as well.
    assert watch.complaints == {"lost": 4, "clamped": 4}
    clamped, lost = sorted(_messages(record))
    assert "adaptive_weight is 10, at its limit" in clamped
    assert "max_adaptive_weight" in clamped
    assert "discriminator_accuracy is 0.500" in lost
    assert "2 epochs up to epoch 2" in lost and "pretraining_steps" in lost


def test_a_discriminator_that_has_won():
    with pytest.warns(UserWarning, match="discriminator_accuracy is") as record:
        watch = _fit(_model(), discriminator=0.3, epochs=30, max_accuracy=0.8)
    assert watch.complaints["won"] >= 2
    (message,) = [m for m in _messages(record) if "r1_weight" in m]
    assert "It tells every reconstruction" in message


def test_a_rising_reconstruction_loss():
    model = _model(adaptive_weight=False, weight=1e3)
    with pytest.warns(UserWarning, match="at best") as record:
        watch = _fit(model, generator=0.03, epochs=8)
    assert watch.complaints["rising"] >= 2
    (message,) = [m for m in _messages(record) if "at best" in m]
    assert "reconstruction_loss is" in message and "warmup_steps" in message


def test_nothing_is_said_before_the_discriminator_counts(recwarn):
    model = _model(discriminator_start=100)
    for weight in model.discriminator.weights:
        weight.assign(keras.ops.zeros_like(weight))
    watch = _fit(model)
    assert watch.complaints == {} and not _messages(recwarn)


def test_refuses_what_it_cannot_watch():
    model = VQVAE(hidden_units=8, residual_units=4, codebook_dim=4)
    model.compile()
    with pytest.raises(ValueError, match="VQGAN.*VQVAE"):
        model.fit(
            networks.images(4, 8, 8, 3),
            verbose=0,
            callbacks=[DiscriminatorHealth()],
        )
    for arguments in ({"max_accuracy": 0.5}, {"max_rise": 0}, {"patience": 0}):
        with pytest.raises(ValueError, match="Received: "):
            DiscriminatorHealth(**arguments)
