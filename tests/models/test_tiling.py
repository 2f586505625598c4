"""Tiles against the whole image."""

import keras
import networks
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from keras_vq.layers import EMAVectorQuantizer, VectorQuantizer
from keras_vq.layers.attention import SpatialAttention
from keras_vq.layers.group_normalization import GroupNormalization
from keras_vq.layers.whole_image import Tiles, tile_scope
from keras_vq.models import VQGAN, VQVAE, VQAutoencoder, tiling
from keras_vq.models.tile_grid import Axis, Grid
from keras_vq.models.tiling import Tiling


@pytest.fixture(scope="module")
def preset():
    return VQVAE.from_preset("vqvae_cifar")


@pytest.fixture(scope="module")
def photo():
    pixels = pytest.importorskip("skimage.data").astronaut()
    return VQVAE.preprocess(pixels[None, :203, 100:302])


def _global_network(name, gradient_checkpointing=False, factor=4):
    """Convolution, normalization and attention: three looks at the whole."""
    initializer = keras.initializers.RandomNormal(0, 0.3, seed=1)
    options = {"padding": "same", "kernel_initializer": initializer}
    if name == "encoder":
        x = inputs = keras.Input((None, None, 3))
        x = layers.Conv2D(8, factor, factor, **options)(x)
    else:
        x = inputs = keras.Input((None, None, 8))
    x = GroupNormalization(4)(x)
    x = layers.Conv2D(8, 3, activation="tanh", **options)(x)
    x = SpatialAttention(
        4, gradient_checkpointing=gradient_checkpointing, name="attention"
    )(x)
    if name == "decoder":
        x = layers.Conv2DTranspose(3, factor, factor, **options)(x)
    return keras.Model(inputs, x, name=name)


def _global_model(**kwargs):
    quantizer = VectorQuantizer(
        32, 8, codebook_initializer=keras.initializers.RandomNormal(seed=1)
    )
    return VQAutoencoder(
        _global_network("encoder", **kwargs),
        quantizer,
        _global_network("decoder", **kwargs),
    )


@pytest.fixture(scope="module")
def global_model():
    return _global_model()


# Where tiles lie


@pytest.mark.parametrize("side", [1, 7, 8, 9, 13, 14, 40, 101])
@pytest.mark.parametrize("overlap", [0, 1, 4])
def test_tiles_cover_an_axis(side, overlap):
    axis = Axis(side, 8, overlap)
    assert axis.size == min(side, 8)
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.size == side
    for a, b in zip(axis.starts, axis.starts[1:], strict=False):
        assert a < b <= a + axis.size - overlap
    # As few as possible.
    assert len(axis.starts) == max(
        1, int(np.ceil((side - overlap) / (8 - overlap)))
    )
    seen = np.concatenate(
        [
            np.arange(*axis.core(i)) + start
            for i, start in enumerate(axis.starts)
        ]
    )
    np.testing.assert_array_equal(seen, np.arange(side))
    for scale in (1, 4):
        total = np.zeros(side * scale)
        for i, start in enumerate(axis.starts):
            weights = axis.weights(i, scale)
            assert weights.min() >= 0
            total[start * scale :][: len(weights)] += weights
        np.testing.assert_allclose(total, 1, atol=1e-6)


def test_samples_are_spread_from_end_to_end():
    size, starts, cores = Axis(64, 32, 8).samples()
    assert (size, starts) == (8, [0, 18, 37, 56])
    assert cores == [(0, 7), (1, 7), (1, 7), (1, 8)]


def test_parts_beyond_the_end_repeat_the_last_pixels():
    grid = Grid((3, 2), 2, 0, factor=4)
    image = np.arange(10 * 7.0).reshape(10, 7, 1)
    whole = np.pad(image, [(0, 2), (0, 1), (0, 0)], "edge")
    np.testing.assert_array_equal(grid.tile(image, (0, 0)), whole[:8])
    np.testing.assert_array_equal(grid.tile(image, (1, 0)), whole[4:])


# Convolutions


@pytest.mark.parametrize("batch_size", [1, 4])
def test_convolutions_give_what_they_give_of_the_whole(
    preset, photo, batch_size
):
    """The published preset sees 24 pixels to each side at most."""
    plan = Tiling(128, overlap=64, batch_size=batch_size)
    # 51 codes: three tiles of 32, which share 22 codes, 88 pixels.
    codes = tiling.encode(preset, photo, plan)
    expected = np.asarray(preset.encode(photo))
    assert codes.dtype == "int32" and isinstance(codes, np.ndarray)
    np.testing.assert_array_equal(codes, expected)
    images = tiling.decode(preset, codes, plan)
    assert images.dtype == "float32" and isinstance(images, np.ndarray)
    np.testing.assert_allclose(images, preset.decode(expected), atol=1e-5)
    np.testing.assert_allclose(
        tiling.reconstruct(preset, photo, plan), preset(photo), atol=1e-5
    )


def test_too_little_overlap_is_seen(preset, photo):
    codes = np.asarray(preset.encode(photo))
    images = tiling.decode(preset, codes, Tiling(68, overlap=0))
    assert np.abs(images - preset.decode(codes)).max() > 1e-3


def test_image_smaller_than_a_tile(preset, photo):
    photo = photo[:, :31, :150]
    np.testing.assert_array_equal(
        tiling.encode(preset, photo, 160), preset.encode(photo)
    )
    assert tiling.reconstruct(preset, photo, 160).shape == photo.shape


@pytest.mark.parametrize("size", [(9, 32), (32, 9), (5, 203)])
def test_sides_that_end_far_from_a_multiple(preset, photo, size):
    """More pixels than codes are missing: sides do not give the factor."""
    photo = photo[:, : size[0], : size[1]]
    plan = Tiling(128, overlap=64)
    codes = tiling.encode(preset, photo, plan)
    expected = np.asarray(preset.encode(photo))
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_allclose(
        tiling.decode(preset, codes, plan), preset.decode(expected), atol=1e-5
    )
    np.testing.assert_allclose(
        tiling.reconstruct(preset, photo, plan), preset(photo), atol=1e-5
    )


@pytest.mark.parametrize("size", [(100, 112), (112, 100), (33, 17)])
def test_most_sides_end_far_from_a_multiple_of_sixteen(size):
    model = _global_model(factor=16)
    images = networks.images(1, *size, 3)
    codes = tiling.encode(model, images, 512)
    expected = np.asarray(model.encode(images))
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(codes, expected)
    np.testing.assert_allclose(
        tiling.decode(model, codes, 512), model.decode(expected), atol=1e-5
    )
    np.testing.assert_allclose(
        tiling.reconstruct(model, images, 512), model(images), atol=1e-5
    )


def test_several_images(preset, photo):
    images = np.concatenate([photo, photo[:, ::-1]])
    codes = tiling.encode(preset, images, Tiling(128, overlap=64))
    np.testing.assert_array_equal(codes, preset.encode(images))


def test_images_that_lie_in_a_file(preset, photo, tmp_path):
    np.save(tmp_path / "photo.npy", photo)
    mapped = np.load(tmp_path / "photo.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        tiling.encode(preset, mapped, 128), tiling.encode(preset, photo, 128)
    )


def test_sequences():
    encoder = keras.Sequential(
        [keras.Input((None, 2)), layers.Conv1D(4, 8, 4, padding="same")]
    )
    decoder = keras.Sequential(
        [
            keras.Input((None, 4)),
            layers.Conv1DTranspose(2, 8, 4, padding="same"),
        ]
    )
    quantizer = EMAVectorQuantizer(16, 4, codebook_initializer="normal")
    model = VQAutoencoder(encoder, quantizer, decoder)
    signals = networks.images(2, 203, 2)
    plan = Tiling(64, overlap=32)
    codes = tiling.encode(model, signals, plan)
    np.testing.assert_array_equal(codes, model.encode(signals))
    np.testing.assert_allclose(
        tiling.decode(model, codes, plan), model.decode(codes), atol=1e-5
    )


def test_half_precision(dtype_policy):
    dtype_policy("mixed_bfloat16")
    quantizer = EMAVectorQuantizer(16, 4, codebook_initializer="normal")
    model = VQAutoencoder(networks.encoder(), quantizer, networks.decoder())
    images = networks.images(1, 60, 60, 3)
    plan = Tiling(32, overlap=16)
    codes = tiling.encode(model, images, plan)
    np.testing.assert_array_equal(codes, model.encode(images))
    decoded = tiling.decode(model, codes, plan)
    assert decoded.dtype == "float32"
    expected = tf.cast(model.decode(codes), "float32")
    np.testing.assert_allclose(decoded, expected, atol=0.02)


def test_levels_of_codes():
    """Codes of several levels are cut each at its own scale."""

    def quantizer():
        return EMAVectorQuantizer(16, 4, codebook_initializer="normal")

    model = networks.vqvae2(quantizer)
    images = networks.images(1, 300, 262, 3)
    plan = Tiling(256, overlap=128)
    codes = model.encode(images, tiling=plan)
    expected = model.encode(images)
    assert [x.shape for x in codes] == [(1, 75, 66), (1, 150, 132)]
    for level, other in zip(codes, expected, strict=True):
        assert len(np.unique(level)) > 2
        np.testing.assert_array_equal(level, other)
    np.testing.assert_allclose(
        model.decode(codes, tiling=plan), model.decode(expected), atol=1e-5
    )


# What sees the whole image


def test_each_pass_more_gets_nearer_until_nothing_is_left(global_model):
    """One look at the whole image after the other becomes exact."""
    images = networks.images(1, 72, 60, 3)
    images += np.linspace(-0.7, 0.7, 72, dtype="float32")[:, None, None]
    codes = np.asarray(global_model.encode(images))
    expected = np.asarray(global_model.decode(codes))
    errors = []
    for passes in (1, 2, 4):
        plan = Tiling(32, overlap=16, passes=passes, batch_size=4)
        decoded = tiling.decode(global_model, codes, plan)
        errors.append(np.abs(decoded - expected).max())
    # Normalization, the one within the attention, and the attention.
    assert errors[0] > errors[1] > 1e-3
    np.testing.assert_allclose(errors[2], 0, atol=1e-5)
    np.testing.assert_array_equal(
        tiling.encode(global_model, images, plan), codes
    )


def test_tiles_by_themselves_would_differ_where_they_meet(global_model):
    """One pass leaves no seam: all tiles do the same in the same place."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 16, (1, 48, 16)).astype("int32")
    codes[:, 24:] += 16  # The halves differ, and so do means over tiles.
    plan = Tiling(128, overlap=32)
    shared = tiling.decode(global_model, codes, plan)
    grid = Grid((48, 16), *plan.in_codes(4))
    assert len(grid.tiles) == 2
    alone = [
        np.asarray(global_model.decode(grid.tile(codes[0], tile)[None]))[0]
        for tile in grid.tiles
    ]
    # The tiles share codes 16 to 32; their middle is far from both ends.
    step = np.abs(alone[0][23 * 4 : 25 * 4] - alone[1][7 * 4 : 9 * 4]).max()
    assert step > 0.05
    moved = tiling.decode(global_model, codes, Tiling(160, overlap=32))
    middle = slice(16 * 4 + 8, 32 * 4 - 8)
    assert np.isfinite(moved).all() and shared.shape == moved.shape
    # Within the overlap, both tiles agree but for rounding: any mix of them
    # is the same image.
    hard = _decode_without_ramp(global_model, codes, plan)
    np.testing.assert_allclose(hard[:, middle], shared[:, middle], atol=1e-5)


def _decode_without_ramp(model, codes, plan):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Grid, "blend", Grid.paste)
        return tiling.decode(model, codes, plan)


def _vqgan():
    model = VQGAN(
        base_channels=4,
        channel_multipliers=(1, 1, 2),
        attention_factors=(4,),
        residual_blocks=1,
        latent_channels=8,
        codebook_size=32,
        codebook_dim=4,
        groups=2,
        discriminator=None,
        perceptual_loss=None,
    )
    model.adapt(_sized(64, 64))
    return model


def _sized(height, width):
    images = networks.images(1, height, width, 3)
    return (
        images + np.linspace(-0.7, 0.7, height, dtype="float32")[:, None, None]
    )


def test_vqgan_in_many_passes_is_that_of_the_whole_image():
    """All its normalizations and attentions, one after the other."""
    model = _vqgan()
    images = _sized(478, 14)
    codes = np.asarray(model.encode(images))
    expected = np.asarray(model.decode(codes))
    errors, equal = {}, {}
    for passes in (1, 24):
        # A quarter of the overlap is what the convolutions see.
        plan = Tiling(384, overlap=192, passes=passes, batch_size=2)
        decoded = tiling.decode(model, codes, plan)
        errors[passes] = np.abs(decoded - expected).max()
        equal[passes] = (tiling.encode(model, images, plan) == codes).mean()
    assert errors[1] > 1e-3
    assert errors[24] < 1e-5
    assert equal[24] == 1


def test_moments_and_attention_of_the_image_are_used():
    """What is known replaces what the tile finds."""
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (2, 6, 4, 8)).astype("float32")
    norm = GroupNormalization(4)
    norm.build(x.shape)
    mean = rng.normal(size=(1, 1, 8)).astype("float32")
    variance = rng.uniform(0.5, 2, (1, 1, 8)).astype("float32")
    cores = np.array([[[0, 2], [0, 1]], [[1, 3], [1, 2]]], "int32")
    known = [{"mean": mean, "variance": variance}]
    with tile_scope(Tiles(cores, (3, 2), known, collect=True)) as tiles:
        y = np.asarray(norm(x))
    np.testing.assert_allclose(
        y, (x - mean[:, None]) / np.sqrt(variance[:, None] + 1e-6), rtol=1e-5
    )
    (found,) = tiles.found
    for i, part in enumerate([x[0, :4, :2], x[1, 2:, 2:]]):
        groups = part.reshape(8, 4, 2)
        expected = groups.mean(axis=(0, 2)).repeat(2)
        np.testing.assert_allclose(found["mean"][i, 0], expected, rtol=1e-5)
        expected = groups.var(axis=(0, 2)).repeat(2)
        np.testing.assert_allclose(found["variance"][i, 0], expected, rtol=1e-5)
        assert np.ravel(found["count"])[i] == 8


def test_checkpointed_blocks():
    model = _global_model(gradient_checkpointing=True)
    images = networks.images(1, 64, 64, 3)
    plan = Tiling(32, overlap=16, passes=4)
    np.testing.assert_array_equal(
        tiling.encode(model, images, plan), model.encode(images)
    )


# Compiled once


def test_one_function_for_all_tiles(photo, monkeypatch):
    quantizer = EMAVectorQuantizer(16, 4, codebook_initializer="normal")
    model = VQAutoencoder(networks.encoder(), quantizer, networks.decoder())
    traces = []
    encode = model.encode

    def counted(images):
        traces.append(tuple(images.shape))
        return encode(images)

    monkeypatch.setattr(model, "encode", counted)
    plan = Tiling(64, overlap=16, batch_size=3)
    first = tiling.encode(model, photo, plan)
    # Samples, tiles.
    assert traces == [(None, 16, 16, 3), (None, 64, 64, 3)]
    tiling.encode(model, photo[:, :180], plan)
    tiling.encode(model, photo, plan)
    assert len(traces) == 2
    # The weights are not part of what is compiled.
    for weight in model.encoder.weights:
        weight.assign(-2 * weight)
    assert (tiling.encode(model, photo, plan) != first).any()
    assert len(traces) == 2


@pytest.fixture
def counted(monkeypatch):
    """A model that sees the whole image, and the shapes it is traced with."""
    model = _global_model()
    traces = []
    for name in ("encode", "decode"):
        method = getattr(model, name)

        def traced(inputs, method=method, name=name):
            if not tf.executing_eagerly():
                traces.append((name, *inputs.shape))
            return method(inputs)

        monkeypatch.setattr(model, name, traced)
    return model, traces


def test_one_graph_for_images_of_all_sizes(counted):
    """Keys and values are those of the image; the graph is of the tile."""
    model, traces = counted
    whole = VQAutoencoder(model.encoder, model.quantizer, model.decoder)
    for size in [(72, 60), (40, 101), (33, 64), (150, 34)]:
        images = networks.images(1, *size, 3)
        plan = Tiling(32, overlap=16, passes=4, batch_size=4)
        np.testing.assert_allclose(
            tiling.reconstruct(model, images, plan), whole(images), atol=1e-4
        )
        # Samples, tiles that are only looked at, and those of the result.
        assert traces == [
            *[("encode", None, s, s, 3) for s in (12, 32, 32)],
            *[("decode", None, s, s) for s in (3, 8, 8)],
        ]
    # Another plan for the same tile.
    tiling.reconstruct(model, images, Tiling(32, overlap=8, batch_size=1))
    assert len(traces) == 6


def test_two_graphs_for_images_with_sides_that_are_not_cut(counted):
    model, traces = counted
    whole = VQAutoencoder(model.encoder, model.quantizer, model.decoder)
    for n, size in enumerate([(20, 60), (22, 70), (50, 9), (7, 12), (12, 8)]):
        images = networks.images(1, *size, 3)
        plan = Tiling(32, overlap=16, passes=4)
        np.testing.assert_allclose(
            tiling.reconstruct(model, images, plan), whole(images), atol=1e-4
        )
        if n == 3:  # Three for each of both, and those of a single tile.
            expected = len(traces)
    assert len(traces) == expected == 2 * (3 + 3 + 1)


def test_model_is_saved_as_before(photo, tmp_path):
    quantizer = EMAVectorQuantizer(16, 4, codebook_initializer="normal")
    model = VQAutoencoder(networks.encoder(), quantizer, networks.decoder())
    codes = tiling.encode(model, photo, 64)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(tiling.encode(loaded, photo, 64), codes)
    model.export(tmp_path / "exported", verbose=False)


# What is refused


@pytest.mark.parametrize(
    "options, message",
    [
        ({"tile_size": 0}, "`tile_size` must be a positive.*tile_size=0"),
        ({"tile_size": 64.0}, "`tile_size` must be a positive"),
        ({"passes": 0}, "`passes` must be a positive integer"),
        ({"batch_size": True}, "`batch_size` must be a positive integer"),
        ({"overlap": -1}, "0 or more.*Received: overlap=-1"),
        ({"overlap": 512}, "half of `tile_size`, such as overlap=128.*512"),
    ],
)
def test_sizes_that_do_not_fit(options, message):
    with pytest.raises(ValueError, match=message):
        Tiling(**options)


def test_tile_that_the_factor_does_not_divide(preset, photo):
    with pytest.raises(ValueError, match="multiple of.*4, such as 68.*66"):
        tiling.encode(preset, photo, 66)


@pytest.mark.parametrize("plan", [None, "512", 2.5, True])
def test_no_tiling(preset, photo, plan):
    with pytest.raises(ValueError, match="`tiling` must be.*Received"):
        tiling.encode(preset, photo, plan)


def test_images_and_codes_that_are_none(preset):
    with pytest.raises(ValueError, match="float images.*uint8"):
        tiling.encode(preset, np.zeros((1, 8, 8, 3), "uint8"), 64)
    with pytest.raises(ValueError, match="must lie in.*another model"):
        tiling.decode(preset, np.full((1, 8, 8), 512), 64)
    with pytest.raises(ValueError, match="integers of 3 axes.*Received"):
        tiling.decode(preset, np.zeros((8, 8), "int32"), 64)
    levels = [np.zeros((1, 10, 8), "int32"), np.zeros((1, 19, 16), "int32")]
    with pytest.raises(ValueError, match="a list of 1 maps.*Received: 2"):
        tiling.decode(preset, levels, 64)
    model = networks.vqvae2()
    with pytest.raises(ValueError, match="1 : 2.*1, 10, 8.*1, 19, 16"):
        tiling.decode(model, levels, 64)
