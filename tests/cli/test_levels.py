"""The commands with a preset that has several levels of codes."""

import json

import keras
import numpy as np
import pytest
from cli_helpers import load

import keras_vq

FACTORS = {"codes_1": 4, "codes_2": 2}


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    """Folder of a small VQ-VAE-2, 4 and 2 pixels a code."""
    keras.utils.set_random_seed(5)
    model = keras_vq.models.VQVAE2(
        (2, 2),
        hidden_units=8,
        residual_units=4,
        codebook_dim=4,
        quantizers=[
            keras_vq.layers.EMAVectorQuantizer(300, 4),
            keras_vq.layers.EMAVectorQuantizer(16, 4),
        ],
    )
    rng = np.random.default_rng(5)
    model.adapt(rng.uniform(-1, 1, (8, 32, 32, 3)).astype("float32"))
    folder = tmp_path_factory.mktemp("levels") / "preset"
    model.save_to_preset(str(folder))
    return str(folder)


@pytest.fixture
def large_photos(photos):
    """Without the picture that is one row high."""
    (photos / "inner" / "a.png").unlink()
    return photos


def test_there_and_back(program, levels, large_photos, tmp_path):
    path, out, seen = (tmp_path / n for n in ("codes.npz", "out", "seen"))
    command = ["encode", large_photos, path, "--preset", levels]
    assert program(*command, "--batch-size", 1)[0] == 0
    model = keras_vq.models.VQVAE2.from_preset(levels)
    with np.load(path, allow_pickle=False) as archive:
        content = dict(archive)
    assert content["codes_1"].dtype == np.uint16
    assert content["codes_2"].dtype == np.uint8
    assert json.loads(str(content["info"]))["codebook_size"] == [300, 16]
    starts = {"codes_1": 0, "codes_2": 0}
    for i, name in enumerate(content["names"]):
        image = load(large_photos / str(name))
        assert content["sizes"][i].tolist() == list(image.shape[:2])
        expected = model.encode(model.preprocess(image[None]))
        for key, want in zip(FACTORS, expected, strict=True):
            want = np.asarray(want)[0]
            grid = content[key.replace("codes", "grids")][i]
            assert tuple(grid) == want.shape
            got = content[key][starts[key] :][: want.size]
            np.testing.assert_array_equal(got.reshape(grid), want)
            starts[key] += want.size
    assert program("decode", path, out, "--batch-size", 1)[0] == 0
    command = ["reconstruct", large_photos, seen, "--preset", levels]
    assert program(*command, "--batch-size", 1)[0] == 0
    for name in content["names"]:
        pixels = load(out / str(name))
        np.testing.assert_array_equal(pixels, load(seen / str(name)))


def test_levels_that_do_not_fit(program, fails, levels, large_photos, tmp_path):
    path = tmp_path / "codes.npz"
    command = ["encode", large_photos, path, "--preset", levels]
    assert program(*command, "--image-size", 8)[0] == 0
    with np.load(path, allow_pickle=False) as archive:
        content = dict(archive)
    assert content["codes_1"].shape == (4, 2, 2)
    for changes in (
        {"codes_2": content["codes_1"]},
        {"codes_2": content["codes_2"] + 16},
        {
            "codes_2": content["codes_1"] % 16,
            "grids_2": content["grids_1"],
        },
        {"grids_2": content["grids_2"][:-1]},
    ):
        np.savez(path, **{**content, **changes})
        assert str(path) in fails("decode", path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_images_that_are_too_small(fails, levels, photos, tmp_path):
    message = fails("encode", photos, tmp_path / "c.npz", "--preset", levels)
    assert "4 or more pixels" in message
