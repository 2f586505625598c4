"""Resizing against Pillow's antialiased resampling, and crops by hand."""

import numpy as np
import pytest
from pictures import noise
from PIL import Image

from keras_vq.data import from_arrays, resize_image
from keras_vq.data.resize import covering_size, crop_image

PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "area": Image.Resampling.BOX,
}


def stripes(height, width):
    """A pattern finer than the result's pixels: aliasing would show."""
    y, x = np.mgrid[:height, :width]
    waves = np.sin(x * 2.1) * np.sin(y * 1.7)
    ramp = x / width
    return np.uint8(127 * waves[..., None] * 0.6 + 80 * ramp[..., None] + 88)


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize("size", [(24, 32), (12, 16), (48, 24)])
def test_shrinking_agrees_with_pillow(interpolation, size):
    image = np.concatenate([stripes(96, 128)] * 3, -1)
    image[..., 1] = noise(96, 128, 1)[..., 0]
    expected = np.asarray(
        Image.fromarray(image).resize(size[::-1], PILLOW[interpolation])
    )
    result = resize_image(image, size, interpolation)
    assert np.abs(result.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos"])
def test_odd_scales_agree_with_pillow(interpolation):
    image = noise(97, 131)
    expected = np.asarray(
        Image.fromarray(image).resize((50, 41), PILLOW[interpolation])
    )
    result = resize_image(image, (41, 50), interpolation)
    assert np.abs(result.astype(int) - expected).max() <= 2


def test_fine_stripes_become_grey_instead_of_aliasing():
    image = np.zeros((64, 64, 1), np.uint8)
    image[:, ::2] = 255
    result = resize_image(image, (16, 16))
    assert np.abs(result[:, 2:-2].astype(int) - 128).max() <= 6


def test_an_image_of_the_right_size_is_not_touched():
    image = noise()
    assert resize_image(image, (24, 30)) is image


@pytest.mark.parametrize(
    "shape, target, short_side, expected",
    [
        ((100, 200), (50, 50), None, (50, 100)),
        ((200, 100), (50, 50), None, (100, 50)),
        ((100, 200), (50, 50), 64, (64, 128)),
        ((33, 47), (32, 32), None, (32, 46)),
        ((10, 10), (20, 30), None, (30, 30)),
    ],
)
def test_covering_size(shape, target, short_side, expected):
    assert covering_size(shape, target, short_side) == expected


def test_every_offset_of_a_crop_has_the_same_share():
    image = np.arange(10)[:, None, None] * np.ones((1, 7, 1), int)
    tops = [
        crop_image(image, (8, 7), (w, 0.5))[0, 0, 0]
        for w in (np.arange(300) + 0.5) / 300
    ]
    np.testing.assert_array_equal(np.bincount(tops), [100, 100, 100])


def pixels(dataset):
    (batch,) = list(dataset)
    return np.asarray(batch + 1) * 127.5


def test_centre_crop_keeps_the_aspect_ratio():
    image = noise(40, 60)
    dataset = from_arrays(image[None], image_size=20, batch_size=1)
    small = np.asarray(
        Image.fromarray(image).resize((30, 20), PILLOW["bicubic"])
    )
    difference = pixels(dataset)[0] - small[:, 5:25]
    assert np.abs(difference).max() <= 2.01


def test_without_crop_the_whole_image_is_distorted():
    image = noise(40, 60)
    dataset = from_arrays(image[None], image_size=20, crop=None, batch_size=1)
    small = np.asarray(
        Image.fromarray(image).resize((20, 20), PILLOW["bicubic"])
    )
    assert np.abs(pixels(dataset)[0] - small).max() <= 2.01


def test_random_crops_are_windows_of_the_resized_image():
    rows = np.arange(32, dtype=np.uint8)[:, None] * 4
    columns = np.arange(32, dtype=np.uint8)[None] * 4
    image = np.stack([rows + 0 * columns, columns + 0 * rows], -1)
    images = np.repeat(
        np.concatenate([image, image[..., :1]], -1)[None], 400, 0
    )
    dataset = from_arrays(
        images, image_size=24, resize=32, crop="random", batch_size=400
    )
    batch = np.round(pixels(dataset)).astype(int)
    tops, lefts = batch[:, 0, 0, 0] // 4, batch[:, 0, 0, 1] // 4
    for crop, top, left in zip(batch, tops, lefts, strict=True):
        window = images[0, top : top + 24, left : left + 24]
        np.testing.assert_array_equal(crop, window)
    # 9 offsets each way, drawn independently: all appear, none dominates.
    for offsets in (tops, lefts):
        counts = np.bincount(offsets, minlength=9)
        assert len(counts) == 9 and counts.min() > 20 and counts.max() < 75
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.2
