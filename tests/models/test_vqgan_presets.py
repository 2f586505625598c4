import networks
import numpy as np
import pytest

from keras_vq.losses import AdversarialTraining
from keras_vq.models import VQGAN, PatchGAN
from keras_vq.trainers.phases import Phase


def _model(**arguments):
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
        perceptual_loss=None,
        **{"discriminator": PatchGAN(filters=4, num_layers=1), **arguments},
    )


def test_a_preset_keeps_the_discriminator_unless_another_is_given(tmp_path):
    model, path = _model(), tmp_path / "preset"
    model.save_to_preset(path)
    images = networks.images(2, 16, 16, 3)
    same = VQGAN.from_preset(path)
    for network in ("discriminator", "encoder"):
        want = getattr(model, network)(images)
        np.testing.assert_array_equal(getattr(same, network)(images), want)

    other = PatchGAN(filters=4, num_layers=2)
    want = other(images)
    changed = VQGAN.from_preset(path, discriminator=other)
    np.testing.assert_array_equal(changed.discriminator(images), want)
    without = VQGAN.from_preset(path, discriminator=None)
    assert without.discriminator is None
    np.testing.assert_array_equal(without(images), model(images))


def _options(model):
    return model.adversarial.get_config()


def test_a_discriminator_that_has_learned_goes_on_at_once(tmp_path):
    """The phases are those of the training that made the preset."""
    phases = {
        "discriminator_start": 0.5,
        "total_steps": 4,
        "warmup_steps": 2,
        "lecam_weight": 0.5,
    }
    model = _model(adversarial=AdversarialTraining(**phases))
    model.compile("sgd", discriminator_optimizer="sgd", run_eagerly=True)
    images = networks.images(4, 16, 16, 3)
    model.fit(images[:2], batch_size=1, verbose=0)
    model.save_to_preset(tmp_path / "before")
    assert _options(VQGAN.from_preset(tmp_path / "before")) == _options(model)
    model.fit(images[:2], batch_size=1, verbose=0)
    model.save_to_preset(tmp_path / "after")
    loaded = VQGAN.from_preset(tmp_path / "after")
    assert loaded.phase_at(0) is Phase.BOTH
    assert _options(loaded) == {
        **_options(model),
        "discriminator_start": 0,
        "total_steps": None,
        "warmup_steps": 0,
    }
    assert float(loaded.adversarial_weight()) == model.adversarial.weight
    # Without it, the next training starts with one that knows nothing.
    model.save_to_preset(tmp_path / "alone", include_parts=False)
    assert _options(VQGAN.from_preset(tmp_path / "alone")) == _options(model)


def _compile(model):
    model.compile("sgd", discriminator_optimizer="sgd")


def test_a_fresh_discriminator_is_told_of(tmp_path, recwarn):
    model = _model()
    model.save_to_preset(tmp_path / "preset")
    path = tmp_path / "preset"
    _compile(model)
    _compile(VQGAN.from_preset(path))
    options = AdversarialTraining(pretraining_steps=9)
    _compile(VQGAN.from_preset(path, load_parts=False, adversarial=options))
    VQGAN.from_preset(path, discriminator=None).compile("sgd")
    VQGAN.from_preset(path, load_parts=False)
    assert not [w for w in recwarn if "a fresh one" in str(w.message)]
    with pytest.warns(UserWarning, match="pretraining_steps=1000"):
        _compile(VQGAN.from_preset(path, load_parts=False))
    other = PatchGAN(filters=4, num_layers=2)
    with pytest.warns(UserWarning, match="a fresh one"):
        _compile(VQGAN.from_preset(path, discriminator=other))
