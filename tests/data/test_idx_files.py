"""IDX files, made byte by byte, and the real Fashion-MNIST where it is."""

import gzip
import pathlib
import struct

import numpy as np
import pytest

from keras_vq.data import from_idx, pipeline_of

FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")


def write(path, array, kind=0x08, packed=False):
    header = struct.pack(
        f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape
    )
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 4, 6), np.uint8)


@pytest.mark.parametrize("packed", [False, True])
def test_bytes_become_images(tmp_path, images, packed):
    path = write(tmp_path / "images", images, packed=packed)
    (batch,) = from_idx(path)
    assert batch.shape == (5, 4, 6, 1)
    np.testing.assert_allclose(
        batch[..., 0], images / 127.5 - 1, rtol=0, atol=1e-6
    )
    (colour,) = from_idx(path, channels=3)
    for channel in range(3):
        np.testing.assert_array_equal(colour[..., channel], batch[..., 0])


def test_labels(tmp_path, images):
    path = write(tmp_path / "images", images)
    labels = write(tmp_path / "labels", np.array([3, 1, 4, 1, 5], np.uint8))
    ((_, found),) = from_idx(path, labels)
    np.testing.assert_array_equal(found, [3, 1, 4, 1, 5])
    short = write(tmp_path / "short", np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="5 images.*4 labels"):
        from_idx(path, short)
    with pytest.raises(ValueError, match="swapped"):
        from_idx(labels, path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("cut", [1, 100, 125])
def test_truncated(tmp_path, images, packed, cut):
    path = write(tmp_path / "images", images, packed=packed)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - cut])
    with pytest.raises(ValueError, match="truncated") as caught:
        from_idx(path)
    assert str(path) in str(caught.value)


def test_what_is_no_idx_file(tmp_path, images):
    path = tmp_path / "x"
    with pytest.raises(FileNotFoundError, match="does not exist"):
        from_idx(path)
    path.write_bytes(b"\x89PNG and so on")
    with pytest.raises(ValueError, match="two zero bytes.*PNG"):
        from_idx(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not an IDX file"):
        from_idx(path)
    write(path, images, kind=0x0D)
    with pytest.raises(ValueError, match="unsigned bytes.*0x0d"):
        from_idx(path)
    write(path, images)
    path.write_bytes(path.read_bytes() + b"!")
    with pytest.raises(ValueError, match="more bytes than that"):
        from_idx(path)


def test_a_header_with_a_wild_size_allocates_nothing(tmp_path):
    path = tmp_path / "bomb"
    size = 0xFFFFFFFF
    path.write_bytes(struct.pack(">BBBBIII", 0, 0, 8, 3, size, size, size))
    with pytest.raises(ValueError, match="truncated or damaged"):
        from_idx(path)


@pytest.mark.skipif(
    not FASHION.is_dir(),
    reason="needs Debian's package dataset-fashion-mnist",
)
def test_real_fashion_mnist():
    files = [
        FASHION / f"t10k-{kind}-ubyte.gz"
        for kind in ("images-idx3", "labels-idx1")
    ]
    dataset = from_idx(*files, batch_size=1000, image_size=32)
    assert pipeline_of(dataset).num_examples == 10_000
    images, labels = next(iter(dataset))
    assert images.shape == (1000, 32, 32, 1)
    raw = gzip.decompress(files[1].read_bytes())[8:]
    np.testing.assert_array_equal(labels, list(raw[:1000]))
    raw = gzip.decompress(files[0].read_bytes())[16 : 16 + 784]
    ((first, _),) = from_idx(*files, batch_size=1).take(1)
    np.testing.assert_allclose(
        first[0, ..., 0],
        np.frombuffer(raw, np.uint8).reshape(28, 28) / 127.5 - 1,
        rtol=0,
        atol=1e-6,
    )
