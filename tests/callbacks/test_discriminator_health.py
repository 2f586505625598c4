import warnings

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


@pytest.mark.parametrize("logit", [0.0, 1.5])
def test_a_discriminator_that_tells_nothing(logit):
    """It says the same of all images, whatever that is."""
    model = _model(max_adaptive_weight=10)
    for weight in model.discriminator.weights:
        weight.assign(keras.ops.zeros(weight.shape))
    bias = model.discriminator.trainable_variables[-1]
    bias.assign(keras.ops.full(bias.shape, logit))
    with pytest.warns(UserWarning) as record:
        watch = _fit(model)
    # Its gradient is zero, so the weight is at its limit as well.
    assert watch.complaints == {"lost": 4, "clamped": 4}
    clamped, lost = sorted(_messages(record))
    assert "adaptive_weight is 10 in the mean, at its limit of 10" in clamped
    assert "max_adaptive_weight" in clamped
    assert "discriminator_accuracy is 0.500" in lost
    assert f"are {logit:.3f} and {logit:.3f}" in lost
    assert "2 epochs up to epoch 2" in lost and "pretraining_steps" in lost


def test_a_discriminator_that_has_won():
    with pytest.warns(UserWarning, match="discriminator_accuracy is") as record:
        watch = _fit(_model(), discriminator=0.3, epochs=30, max_accuracy=0.8)
    assert watch.complaints["won"] >= 2
    told = "It tells every reconstruction"
    (message,) = [m for m in _messages(record) if told in m]
    assert "r1_weight" in message


def test_a_rising_reconstruction_loss():
    model = _model(adaptive_weight=False, weight=1e3)
    with pytest.warns(UserWarning, match="at best") as record:
        watch = _fit(model, generator=0.015, epochs=8)
    assert watch.complaints["rising"] >= 2
    (message,) = [m for m in _messages(record) if "at best" in m]
    assert "reconstruction_loss is" in message and "warmup_steps" in message


def test_nothing_is_said_before_the_discriminator_counts(recwarn):
    model = _model(discriminator_start=100)
    for weight in model.discriminator.weights:
        weight.assign(keras.ops.zeros(weight.shape))
    watch = _fit(model)
    assert watch.complaints == {} and not _messages(recwarn)


@pytest.mark.parametrize(
    "loss, stuck, moving", [("hinge", 0.985, 0.9), ("vanilla", 0.7, 0.6)]
)
def test_a_loss_that_is_stuck(loss, stuck, moving):
    """Though accuracy and logits are a little away from guessing."""
    logs = {
        "discriminator_accuracy": 0.53,
        "real_logits": 0.05,
        "fake_logits": 0.0,
        "adaptive_weight": 6.0,
        "r1_penalty": 0.1,
    }
    options = {"loss": loss, "r1_weight": 2.0}

    def said(value, weight):
        # What the regularizer adds is no part of guessing.
        epoch = {**logs, "discriminator_loss": value + 0.2}
        epoch["adaptive_weight"] = weight
        return _say(*[epoch] * 2, max_adaptive_weight=10.0, **options)[1]

    lost, clamped = sorted(said(stuck, 6.0), key=lambda m: "limit" in m)
    assert f"without regularizers is {stuck:.3f}" in lost
    assert "adaptive_weight is 6 in the mean" in clamped
    assert said(moving, 4.0) == []


def _say(*epochs, start=0, max_rise=0.1, **adversarial):
    """What it says to made-up logs; `start` epochs do not count."""
    model = _model(discriminator_start=start, **adversarial)
    watch = DiscriminatorHealth(patience=2, max_rise=max_rise)
    watch.set_model(model)
    watch.on_train_begin()
    complaints = []
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        for epoch, logs in enumerate(epochs):
            model.steps.assign(epoch)
            watch.on_epoch_begin(epoch)
            watch.on_epoch_end(epoch, logs)
            complaints.append(watch.complaints.get("rising", 0))
    return complaints, _messages(record)


def _logs(**losses):
    return [
        dict(zip(losses, values, strict=True))
        for values in zip(*losses.values(), strict=True)
    ]


def test_a_rising_perceptual_loss():
    """It decides, though the reconstruction loss falls."""
    complaints, (message,) = _say(
        *_logs(
            perceptual_loss=[0.3, 0.2, 0.219, 0.221, 0.23],
            reconstruction_loss=[0.5, 0.4, 0.3, 0.2, 0.1],
        )
    )
    assert complaints == [0, 0, 0, 1, 2]
    assert "perceptual_loss is 0.23, and was 0.2 at best" in message
    assert "2 epochs up to epoch 5" in message


def test_the_validation_data_decide():
    losses = {
        "perceptual_loss": [0.3, 0.2, 0.1, 0.1],
        "val_perceptual_loss": [0.4, 0.3, 0.34, 0.36],
    }
    complaints, (message,) = _say(*_logs(**losses))
    assert complaints == [0, 0, 1, 2]
    assert "val_perceptual_loss is 0.36, and was 0.3 at best" in message
    training, validation = losses.values()
    swapped = {"perceptual_loss": validation, "val_perceptual_loss": training}
    assert _say(*_logs(**swapped)) == ([0, 0, 0, 0], [])


def _every_second(training, validation):
    epochs = _logs(perceptual_loss=training)
    for epoch, value in zip(epochs[1::2], validation, strict=True):
        epoch["val_perceptual_loss"] = value
    return epochs


def test_validation_every_second_epoch():
    # The values of training are far below, and then far above.
    for training in (0.1, 0.9):
        epochs = _every_second([training] * 6, [0.3, 0.29, 0.28])
        assert _say(*epochs) == ([0] * 6, []), training
    # Epochs without validation neither count nor start over.
    epochs = _every_second([0.1] * 8, [0.3, 0.34, 0.35, 0.31])
    complaints, (message,) = _say(*epochs)
    assert complaints == [0, 0, 0, 1, 1, 2, 2, 0]
    assert "val_perceptual_loss is 0.35, and was 0.3 at best" in message
    assert "up to epoch 6" in message


def test_the_best_value_may_be_of_before_the_start():
    complaints, messages = _say(
        *_logs(perceptual_loss=[0.1, 0.9, 0.2, 0.15, 0.1]), start=2
    )
    assert complaints == [0, 0, 1, 2, 0] and len(messages) == 1


def test_losses_below_zero():
    """Log-likelihoods are; -1.05 is no rise above -1."""
    found = _say(*_logs(reconstruction_loss=[-1.0, -1.05, -0.96, -0.9, -0.9]))
    assert found[0] == [0, 0, 0, 1, 2] and len(found[1]) == 1


def test_each_fit_starts_anew():
    watch = DiscriminatorHealth()
    watch.set_model(_model())
    for values in ([0.1, 0.2], [0.2, 0.2]):
        watch.on_train_begin()
        for epoch, value in enumerate(values):
            watch.on_epoch_begin(epoch)
            watch.on_epoch_end(epoch, {"perceptual_loss": value})
    assert watch.complaints == {}


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
