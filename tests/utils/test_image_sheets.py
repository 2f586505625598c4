import io
import os

import keras
import numpy as np
import pytest
from feeding import batches
from PIL import Image

from keras_vq import utils


def numbered(count, height=2, width=3, channels=3):
    """Images in which every pixel of image i is i + 1."""
    images = np.zeros((count, height, width, channels), "uint8")
    return images + np.arange(1, count + 1, dtype="uint8")[:, None, None, None]


def test_floats_become_the_nearest_of_256_levels():
    levels = np.arange(256) / 127.5 - 1
    np.testing.assert_array_equal(
        utils.to_uint8(levels.astype("float32")), np.arange(256)
    )
    values = np.array([-7.0, 9.0, np.nan, -np.inf, np.inf])
    assert utils.to_uint8(values).tolist() == [0, 255, 0, 0, 255]


def test_bfloat16_tensors_are_accepted():
    import keras

    images = keras.ops.cast([[-1.0, 0.0, 1.0]], "bfloat16")
    assert utils.to_uint8(images).tolist() == [[0, 128, 255]]


def test_integers_other_than_bytes_are_refused():
    with pytest.raises(ValueError, match=r"uint8.*Received: dtype=int32"):
        utils.to_uint8(np.zeros((2, 2), "int32"))


def test_grid_places_every_pixel():
    # Written out by hand: 3 images of 2 x 3, 2 in a row, 1 pixel apart.
    a, b, c, _ = 1, 2, 3, 9
    expected = [
        [_, _, _, _, _, _, _, _, _],
        [_, a, a, a, _, b, b, b, _],
        [_, a, a, a, _, b, b, b, _],
        [_, _, _, _, _, _, _, _, _],
        [_, c, c, c, _, _, _, _, _],
        [_, c, c, c, _, _, _, _, _],
        [_, _, _, _, _, _, _, _, _],
    ]
    sheet = utils.image_grid(numbered(3), columns=2, padding=1, background=9)
    for channel in range(3):
        np.testing.assert_array_equal(sheet[..., channel], expected)


def test_grid_enlarges_by_repeating_pixels():
    image = np.array([[[10, 20]]], "uint8")[..., None]
    sheet = utils.image_grid(image, padding=0, scale=2)
    expected = [[10, 10, 20, 20], [10, 10, 20, 20]]
    np.testing.assert_array_equal(sheet[..., 0], expected)
    small = np.zeros((1, 8, 8, 1), "uint8")
    assert utils.image_grid(small, padding=0, scale=None).shape[0] == 64
    large = np.zeros((1, 100, 70, 1), "uint8")
    assert utils.image_grid(large, padding=0, scale=None).shape[:2] == (100, 70)


def test_comparison_has_each_original_above_its_reconstruction():
    originals, copies = numbered(3, 1, 1, 1), numbered(3, 1, 1, 1) + 100
    sheet = utils.comparison_grid(
        originals, copies, columns=2, padding=1, background=0
    )
    expected = [
        [0, 0, 0, 0, 0],
        [0, 1, 0, 2, 0],
        [0, 0, 0, 0, 0],
        [0, 101, 0, 102, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 3, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 103, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    np.testing.assert_array_equal(sheet[..., 0], expected)


@pytest.mark.parametrize("shape", [(2, 4, 4, 2), (4, 4, 3), (0, 4, 4, 3)])
def test_what_is_no_batch_of_images_is_refused(shape):
    with pytest.raises(ValueError, match="Received: shape="):
        utils.image_grid(np.zeros(shape, "uint8"))


def test_unequal_pairs_are_refused():
    with pytest.raises(ValueError, match="must have the same shape"):
        utils.comparison_grid(numbered(2), numbered(3))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_every_pixel(channels, tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (13, 7, channels)).astype("uint8")
    path = tmp_path / "new" / "image.png"
    utils.write_png(path, image)
    read = np.asarray(Image.open(path)).reshape(image.shape)
    np.testing.assert_array_equal(read, image)
    assert os.listdir(path.parent) == ["image.png"]


def test_float_images_become_png():
    content = utils.encode_png(np.full((2, 2, 1), 1.0, "float32"))
    assert np.asarray(Image.open(io.BytesIO(content))).max() == 255


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "codes.npz"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError):
        with utils.atomic_path(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("disk full")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["codes.npz"]


def test_temporary_file_keeps_the_suffix(tmp_path):
    # numpy.savez appends ".npz" to any other name.
    with utils.atomic_path(tmp_path / "codes.npz") as temporary:
        np.savez(temporary, codes=np.arange(3))
    assert os.listdir(tmp_path) == ["codes.npz"]


def test_first_images_of_arrays_and_datasets():
    images = np.random.default_rng(0).uniform(-1, 1, (6, 4, 4, 3))
    images = images.astype("float32")
    labelled = batches(images, range(6), size=4)
    np.testing.assert_array_equal(utils.first_images(images, 2), images[:2])
    np.testing.assert_array_equal(utils.first_images(labelled), images[:4])
    tensor = keras.ops.convert_to_tensor(images)
    np.testing.assert_array_equal(utils.first_images(tensor, 3), images[:3])
    levels = np.array([0, 51, 255], "uint8").reshape(1, 1, 3, 1)
    np.testing.assert_allclose(
        utils.first_images(levels).ravel(), [-1.0, -0.6, 1.0], atol=1e-6
    )


@pytest.mark.parametrize("images", [[], np.zeros((4, 4, 3)), [1, 2]])
def test_first_images_refuses_what_holds_none(images):
    with pytest.raises(ValueError, match="Expected images of shape"):
        utils.first_images(images)
