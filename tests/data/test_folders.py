"""Image folders: which files are taken, in which order, with which label."""

import os

import numpy as np
import pytest
from engines import error_in_a_loop
from pictures import encode, noise
from PIL import Image

from keras_vq.data import from_folder, pipeline_of


def write(path, seed, size=(8, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(noise(*size, seed=seed), "PNG"))


def first_pixels(dataset):
    batches = [b[0] if isinstance(b, tuple) else b for b in dataset]
    pixels = np.concatenate(batches)
    return np.round((pixels + 1) * 127.5).astype(int)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "b.png", 0)
    write(tmp_path / "a.PNG", 1)
    write(tmp_path / "dogs" / "x.png", 2)
    write(tmp_path / "cats" / "deep" / "y.png", 3)
    write(tmp_path / "cats" / "z.png", 4)
    write(tmp_path / ".hidden" / "no.png", 5)
    write(tmp_path / ".no.png", 6)
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "empty").mkdir()
    return tmp_path


def expected(*seeds):
    return np.stack([noise(8, 8, seed=s) for s in seeds])


def test_all_pictures_sorted_by_path(folder):
    dataset = from_folder(folder)
    np.testing.assert_array_equal(
        first_pixels(dataset), expected(1, 0, 3, 4, 2)
    )


def test_not_recursive(folder):
    dataset = from_folder(folder, recursive=False)
    np.testing.assert_array_equal(first_pixels(dataset), expected(1, 0))


def test_subfolders_as_classes(folder):
    dataset = from_folder(folder, labels=True)
    assert pipeline_of(dataset).class_names == ["cats", "dogs"]
    ((images, labels),) = dataset
    np.testing.assert_array_equal(labels, [0, 0, 1])
    np.testing.assert_array_equal(first_pixels(dataset), expected(3, 4, 2))


def test_links_are_followed_but_not_in_circles(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere / "w.png", 9)
    os.symlink(elsewhere, folder / "link")
    os.symlink(folder, folder / "circle")
    dataset = from_folder(folder)
    np.testing.assert_array_equal(
        first_pixels(dataset), expected(1, 0, 3, 4, 2, 9)
    )


def test_what_is_missing(folder, tmp_path):
    with pytest.raises(NotADirectoryError, match="does not exist"):
        from_folder(tmp_path / "nowhere")
    with pytest.raises(NotADirectoryError, match="is a file"):
        from_folder(folder / "b.png")
    with pytest.raises(ValueError, match="an empty folder"):
        from_folder(folder / "empty")
    (folder / "text").mkdir()
    (folder / "text" / "a.csv").write_text("1")
    with pytest.raises(ValueError, match=r"1 \.csv"):
        from_folder(folder / "text")
    with pytest.raises(ValueError, match="subfolder a class"):
        from_folder(folder / "dogs", labels=True)
    with pytest.raises(TypeError, match="must be a path"):
        from_folder(None)


def test_pictures_of_several_sizes_need_image_size(tmp_path):
    write(tmp_path / "a.png", 0)
    write(tmp_path / "odd.png", 1, (8, 9))
    with pytest.raises(error_in_a_loop(), match="odd.png"):
        list(from_folder(tmp_path))
    (batch,) = from_folder(tmp_path, image_size=(6, 4))
    assert batch.shape == (2, 6, 4, 3)


def test_a_bad_file_is_named(folder):
    (folder / "broken.jpg").write_bytes(b"<html>404</html>")
    with pytest.raises(error_in_a_loop(), match="broken.jpg"):
        list(from_folder(folder, image_size=8))


def test_one_channel(folder):
    (batch,) = from_folder(folder, channels=1)
    grey = np.asarray(Image.open(folder / "b.png").convert("L"))
    np.testing.assert_array_equal(
        np.round((batch[1, ..., 0] + 1) * 127.5), grey
    )


def test_real_photos(data_dir):
    dataset = from_folder(
        data_dir / "photos", image_size=64, crop="center", batch_size=16
    )
    assert pipeline_of(dataset).num_examples == 900
    assert len(dataset) == 57
    path = sorted((data_dir / "photos").glob("*.jpg"))[3]
    image = Image.open(path).convert("RGB")
    scale = 64 / min(image.size)
    width, height = (round(s * scale) for s in image.size)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 64) // 2, (height - 64) // 2
    image = np.asarray(image.crop((left, top, left + 64, top + 64)))
    batch = next(iter(dataset))
    assert np.abs((batch[3] + 1) * 127.5 - image).max() <= 2.01
