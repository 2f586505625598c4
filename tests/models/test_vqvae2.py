"""VQ-VAE-2: levels, what each carries, and bad input."""

import keras
import networks
import numpy as np
import pytest
from replicas import values, variables

from keras_vq.layers import (
    EMAVectorQuantizer,
    HierarchicalQuantizer,
    VectorQuantizer,
)
from keras_vq.models import VQVAE, VQVAE2, VQAutoencoder

SMALL = {"hidden_units": 8, "residual_units": 4, "codebook_dim": 4}


def small(*factors, **arguments):
    return VQVAE2(factors, **{**SMALL, "codebook_size": 16, **arguments})


def test_size_of_the_network_of_rosinality():
    """The PyTorch original has 1,388,867 trainable parameters."""
    model = VQVAE2(residual_units=32, encoder_kernel_size=4)
    count = sum(np.prod(w.shape) for w in model.trainable_weights)
    assert count == 1_388_867
    assert model.count_params() == count + 2 * 512 * 64


@pytest.mark.parametrize(
    "factors, side, grids",
    [
        ((4, 2), 256, [32, 64]),
        ((8, 2, 2), 1024, [32, 64, 128]),
        ((4,), 64, [16]),
        ((2, 2, 2, 2), 32, [2, 4, 8, 16]),
    ],
)
def test_grids_of_the_paper(factors, side, grids):
    model = small(*factors)
    shape = (None, side, side, 3)
    features = model.encoder.compute_output_spec(keras.KerasTensor(shape))
    assert [x.shape[1:3] for x in features] == [(g, g) for g in grids]
    bits = [4 * g * g for g in grids]
    assert model.bits_per_level(side, side) == bits
    assert model.bits_per_image(side, side) == sum(bits)


def test_levels_alone():
    """Finer levels are their most frequent code."""
    model = small(2, 2, 2)
    images = networks.images(2, 16, 24, 3)
    model.adapt(np.concatenate([images] * 20))
    codes = model.encode(images)
    counts = np.ones(16, "float32")
    counts[5] = 3
    for level in model.quantizer.levels():
        level.counts.assign(counts)
    for levels in (1, 2, 3):
        filled = [
            x if i < levels else np.full(x.shape, 5)
            for i, x in enumerate(codes)
        ]
        expected = model.decode(filled)
        for given in (codes, codes[:levels]):
            got = model.decode(given, levels=levels)
            np.testing.assert_array_equal(got, expected)
    # Large images too, tile by tile.
    tiled = model.decode(codes[:1], levels=1, tiling=64)
    np.testing.assert_allclose(tiled, model.decode(codes, levels=1), atol=1e-5)


def test_levels_of_a_model_that_has_one():
    model = VQVAE(**SMALL, codebook_size=16)
    codes = np.zeros((1, 2, 2), "int32")
    np.testing.assert_array_equal(
        model.decode(codes, levels=1), model.decode(codes)
    )
    with pytest.raises(ValueError, match="from 1 to 1.*levels=2"):
        model.decode(codes, levels=2)


def test_coarser_levels_condition_finer_ones():
    model = small(2, 2)
    images = networks.images(4, 16, 16, 3)
    model.adapt(np.concatenate([images] * 20))
    features = model.encoder(images)
    fine = np.asarray(model.quantizer.latents(features, 1))
    coarse = model.quantizer.levels()[0]
    coarse.codebook.assign(coarse.codebook + 1.0)
    moved = np.asarray(model.quantizer.latents(features, 1))
    assert np.abs(moved - fine).max() > 1e-3


def test_adapt_goes_from_coarse_to_fine():
    """The finer codebook starts from latents that know the coarser codes."""
    model = small(2, 2)
    images = networks.images(40, 8, 8, 3)
    model.adapt(images)
    levels = model.quantizer.levels()
    assert all(level.initialized for level in levels)
    features = model.encoder(images)
    for i, level in enumerate(levels):
        latents = np.asarray(model.quantizer.latents(features, i))
        again = EMAVectorQuantizer(16, 4, seed=level.seed)
        again.adapt(latents)
        np.testing.assert_allclose(again.codebook, level.codebook, atol=1e-5)
    batches = iter([images])
    with pytest.raises(ValueError, match="read only once"):
        model.adapt(batches)


def test_a_quantizer_of_its_own_for_each_level():
    quantizers = [
        VectorQuantizer(32, 3, l2_normalize=True),
        EMAVectorQuantizer(8, 4),
    ]
    model = VQVAE2((2, 2), **SMALL, quantizers=quantizers)
    assert model.get_config()["codebook_size"] is None
    again = VQVAE2.from_config(model.get_config())
    sizes = [level.codebook_size for level in again.quantizer.levels()]
    assert sizes == [32, 8]
    assert again.quantizer.levels()[0].l2_normalize
    assert model.bits_per_level(8, 8) == [2 * 2 * 5, 4 * 4 * 3]
    model.compile("adam")
    images = networks.images(16, 8, 8, 3)
    logs = model.fit(images, batch_size=8, verbose=0).history
    assert {"codebook_loss", "perplexity_level_1"} < set(logs)


def test_hierarchical_quantizer_between_own_networks(tmp_path):
    inputs = keras.Input((None, None, 3))
    fine = keras.layers.Conv2D(8, 2, 2, activation="relu")(inputs)
    coarse = keras.layers.Conv2D(8, 2, 2)(fine)
    encoder = keras.Model(inputs, [coarse, fine])
    quantizer = HierarchicalQuantizer(
        [EMAVectorQuantizer(8, 4), EMAVectorQuantizer(8, 4)],
        projections=[keras.layers.Dense(4), keras.layers.Dense(4)],
        contexts=[keras.layers.Conv2DTranspose(6, 2, 2)],
    )
    parts = [keras.Input((None, None, 4)) for _ in range(2)]
    raised = keras.layers.UpSampling2D()(parts[0])
    x = keras.layers.Concatenate()([raised, parts[1]])
    decoder = keras.Model(parts, keras.layers.Conv2DTranspose(3, 2, 2)(x))
    model = VQAutoencoder(encoder, quantizer, decoder)
    assert model.level_factors == [4, 2] and model.downsample_factor == 4
    model.compile(keras.optimizers.Adam(1e-2))
    images = networks.images(32, 8, 8, 3)
    history = model.fit(images, batch_size=8, epochs=8, verbose=0).history
    losses = history["reconstruction_loss"]
    assert losses[-1] < 0.9 * losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images), model(images))


def test_preset(tmp_path):
    model = small(2, 2)
    model.adapt(networks.images(40, 8, 8, 3))
    model.save_to_preset(str(tmp_path / "preset"))
    loaded = VQAutoencoder.from_preset(str(tmp_path / "preset"))
    assert type(loaded) is VQVAE2
    images = networks.images(2, 8, 8, 3)
    np.testing.assert_array_equal(loaded(images), model(images))
    changed = VQVAE2.from_preset(
        str(tmp_path / "preset"), gradient_checkpointing=True
    )
    np.testing.assert_array_equal(changed(images), model(images))


def test_a_step_that_is_not_finite_leaves_all_levels(tmp_path):
    model = small(2, 2)
    model.compile(keras.optimizers.AdamW(1e-2), weight_ema=0.9)
    images = networks.images(16, 8, 8, 3)
    model.fit(images, batch_size=8, verbose=0)
    before = values(model)
    spoilt = images[:8].copy()
    spoilt[3] = np.nan
    with pytest.warns(UserWarning, match="skipped"):
        model.fit(spoilt, batch_size=8, verbose=0)
    assert int(model.skipped_steps) == 1
    kept = {id(v) for v in model.training_state}
    for variable, want, got in zip(
        variables(model), before, values(model), strict=True
    ):
        if id(variable) not in kept:
            np.testing.assert_array_equal(got, want, variable.path)


# Bad input


def test_factors_that_are_none():
    for factors in (4, (), "42"):
        with pytest.raises(ValueError, match="tuple of powers of two"):
            VQVAE2(factors)
    with pytest.raises(ValueError, match="downsample_factors=3"):
        VQVAE2((4, 3))


def test_quantizers_that_do_not_fit():
    one = [EMAVectorQuantizer(16, 4)]
    with pytest.raises(ValueError, match="list of 2"):
        VQVAE2((2, 2), **SMALL, quantizers=one)
    with pytest.raises(ValueError, match="codebook_size=8"):
        VQVAE2((2,), **SMALL, quantizers=one, codebook_size=8)
    with pytest.raises(ValueError, match="one keras_vq.layers.Quantizer"):
        VQVAE2((2,), **SMALL, quantizers=["kmeans"])
    with pytest.raises(ValueError, match="2 projections"):
        HierarchicalQuantizer(one, [keras.layers.Dense(4)] * 2, [])


def test_images_smaller_than_the_strides():
    model = small(4, 2)
    for method in (model, model.encode, model.adapt):
        with pytest.raises(ValueError, match=r"8 or more pixels.*\(2, 8, 7"):
            method(networks.images(2, 8, 7, 3))


def test_codes_that_do_not_fit():
    model = small(2, 2)
    coarse, fine = (np.zeros((1, n, n), "int32") for n in (2, 4))
    for codes in ([coarse], coarse, [coarse, fine, fine]):
        with pytest.raises(ValueError, match="list of 2 maps.*coarsest first"):
            model.decode(codes)
    for codes in ([fine, coarse], [coarse, coarse]):
        with pytest.raises(ValueError, match="sizes of 1 : 2.*Received"):
            model.decode(codes)
        with pytest.raises(ValueError, match="sizes of 1 : 2.*Received"):
            model.decode(codes, tiling=16)
    with pytest.raises(ValueError, match="3 axes"):
        model.decode([coarse[0], fine])
    for levels in (0, 3, "one"):
        with pytest.raises(ValueError, match="from 1 to 2"):
            model.decode([coarse, fine], levels=levels)
    with pytest.raises(ValueError, match="list of 1 maps"):
        model.decode([coarse, fine, fine], levels=1)
    features = model.encoder(networks.images(1, 8, 8, 3))
    with pytest.raises(ValueError, match="2 features.*Received: 1"):
        model.quantizer.encode(features[:1])
    with pytest.raises(ValueError, match="2 maps of indices.*Received: 1"):
        model.quantizer.decode([coarse])
