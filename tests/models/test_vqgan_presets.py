import networks
import numpy as np

from keras_vq.models import VQGAN, PatchGAN


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
