import json
import os
import shutil

import numpy as np
import pytest
from cli_helpers import load, make_preset, reconstruction, save

from keras_vq.models import VQAutoencoder


@pytest.fixture
def encoded(program, preset, photos, tmp_path):
    path = tmp_path / "codes.npz"
    command = ["encode", photos, path, "--preset", preset, "--batch-size", 1]
    status, text, error = program(*command)
    assert (status, error) == (0, "")
    assert "5 images to" in text
    return path


def arrays(path):
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def rewrite(path, **changes):
    np.savez(path, **{**arrays(path), **changes})
    return path


def test_codes_are_those_of_the_model(encoded, photos, preset):
    content = arrays(encoded)
    names = ["a.png", "b.png", "c.png", "inner/a.png", "inner/d.png"]
    assert content["names"].tolist() == names
    assert content["codes"].dtype == np.uint8
    start = 0
    for name, size, grid in zip(
        names, content["sizes"], content["grids"], strict=True
    ):
        image = load(photos / name)
        assert tuple(size) == image.shape[:2]
        _, expected = reconstruction(preset, image)
        assert tuple(grid) == expected.shape
        codes = content["codes"][start : start + expected.size]
        np.testing.assert_array_equal(codes.reshape(grid), expected)
        start += expected.size
    assert start == len(content["codes"])
    info = json.loads(str(content["info"]))
    metadata = json.loads(open(f"{preset}/metadata.json").read())
    weights = metadata["files"]["model.weights.h5"]
    assert info["weights_sha256"] == weights["sha256"]
    assert (info["preset"], info["codebook_size"]) == (preset, 32)


def test_one_size_gives_one_array(program, preset, photos, tmp_path):
    path = tmp_path / "codes.npz"
    status, _, _ = program(
        "encode", photos, path, "--preset", preset, "--image-size", 12
    )
    assert status == 0
    content = arrays(path)
    assert content["codes"].shape == (5, 3, 3)
    assert content["sizes"].tolist() == [[12, 12]] * 5


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_decoding_gives_the_pixels_of_reconstruct(
    program, preset, photos, tmp_path, batch_size
):
    rng = np.random.default_rng(5)
    for index in range(7):
        image = rng.integers(0, 256, (16, 16, 3))
        save(photos / f"more_{index}.png", image)
    path, seen, restored = (tmp_path / n for n in ("c.npz", "seen", "restored"))
    options = ["--batch-size", batch_size, "--preset", preset]
    assert program("reconstruct", photos, seen, *options)[0] == 0
    assert program("encode", photos, path, *options)[0] == 0
    # The file itself says which preset it needs.
    status, text, error = program("decode", path, restored, *options[:2])
    assert (status, error) == (0, "")
    assert "12 images to" in text
    names = sorted(p.relative_to(seen) for p in seen.rglob("*.png"))
    assert len(names) == 12
    for name in names:
        pixels = load(restored / name)
        assert pixels.shape == load(photos / name).shape
        np.testing.assert_array_equal(pixels, load(seen / name))


def test_codes_beyond_a_byte(program, photos, tmp_path):
    preset = make_preset(tmp_path / "large", seed=4, codebook_size=300)
    path = tmp_path / "codes.npz"
    assert program("encode", photos, path, "--preset", preset)[0] == 0
    assert arrays(path)["codes"].dtype == np.uint16
    rewrite(path, codes=np.full_like(arrays(path)["codes"], 299))
    assert program("decode", path, tmp_path / "out")[0] == 0
    rewrite(path, codes=np.full_like(arrays(path)["codes"], 300))
    status, _, error = program("decode", path, tmp_path / "other")
    assert status == 1 and "must lie in [0, 300)" in error


def test_grey_images(program, grey_preset, photos, tmp_path):
    path, out = tmp_path / "codes.npz", tmp_path / "out"
    assert program("encode", photos, path, "--preset", grey_preset)[0] == 0
    assert program("decode", path, out)[0] == 0
    assert load(out / "b.png").shape == (17, 13)


def test_another_model_is_refused_by_its_weights(
    program, fails, encoded, preset, tmp_path
):
    other = make_preset(tmp_path / "other", seed=9)
    out = tmp_path / "out"
    message = fails("decode", encoded, out, "--preset", other)
    info = json.loads(str(arrays(encoded)["info"]))
    metadata = json.loads(open(f"{other}/metadata.json").read())
    received = metadata["files"]["model.weights.h5"]["sha256"]
    for part in (preset, info["weights_sha256"][:12], other, received[:12]):
        assert part in message
    assert not out.exists()
    # The same weights under another name are the same model.
    shutil.copytree(preset, tmp_path / "copy")
    command = ["decode", encoded, out, "--preset", tmp_path / "copy"]
    assert program(*command)[0] == 0


def test_a_preset_that_is_gone(fails, encoded, tmp_path):
    info = json.loads(str(arrays(encoded)["info"]))
    info["preset"] = "vqvae_nothing"
    rewrite(encoded, info=np.array(json.dumps(info)))
    message = fails("decode", encoded, tmp_path / "out")
    assert "There is no preset 'vqvae_nothing'" in message


def test_codes_outside_of_the_codebook(fails, encoded, tmp_path):
    for value in (-1, 32):
        codes = arrays(encoded)["codes"].astype("int64")
        codes[-1] = value
        rewrite(encoded, codes=codes)
        message = fails("decode", encoded, tmp_path / "out")
        assert "inner/d.png must lie in [0, 32)" in message
        assert not (tmp_path / "out").exists()


def damaged(content):
    """Files that are nearly right, with what is wrong about them."""
    codes, grids = content["codes"], content["grids"]
    return {
        "too few codes": {"codes": codes[:-1]},
        "codes that are no integers": {"codes": codes.astype("float32")},
        "objects": {"codes": codes.astype(object)},
        "a grid of nothing": {"grids": grids * [[1, 0]]},
        "negative grids": {"grids": -grids},
        "a name too few": {"names": content["names"][1:]},
        "no images": {
            "codes": codes[:0],
            "grids": grids[:0],
            "names": content["names"][:0],
            "sizes": content["sizes"][:0],
        },
        "sizes of another image": {"sizes": content["sizes"] * 2},
        "sizes of 0": {"sizes": content["sizes"] * 0},
        "one number a size": {"sizes": content["sizes"][:, :1]},
        "no JSON": {"info": np.array("{")},
        "other JSON": {"info": np.array("[1]")},
        "another format": {"info": np.array('{"format": "x"}')},
        "a newer version": {
            "info": np.array('{"format": "keras_vq.codes", "version": 2}')
        },
        "no preset": {
            "info": np.array('{"format": "keras_vq.codes", "version": 1}')
        },
    }


def test_damaged_contents(fails, encoded, tmp_path):
    content = arrays(encoded)
    for changes in damaged(content).values():
        np.savez(encoded, **{**content, **changes})
        message = fails("decode", encoded, tmp_path / "out")
        assert str(encoded) in message
    for name in content:
        np.savez(encoded, **{k: v for k, v in content.items() if k != name})
        assert str(encoded) in fails("decode", encoded, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_archive(fails, encoded, photos, tmp_path):
    content = encoded.read_bytes()
    for data in (b"", b"PK\x03\x04", content[:200], content[:-30], b"\x80text"):
        encoded.write_bytes(data)
        message = fails("decode", encoded, tmp_path / "out")
        assert f"{encoded} is no file of codes" in message
    np.save(tmp_path / "array.npy", np.arange(3))
    for path in (photos / "a.png", tmp_path / "array.npy", photos):
        assert "no file of codes" in fails("decode", path, tmp_path / "out")
    assert "there is no file" in fails("decode", "x.npz", tmp_path / "out")


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "x/../../a.png"])
def test_names_cannot_lead_out_of_the_folder(fails, encoded, tmp_path, name):
    names = arrays(encoded)["names"].astype("U99")
    names[0] = name
    rewrite(encoded, names=names)
    assert name.rsplit(".")[0] in fails("decode", encoded, tmp_path / "out")
    assert not (tmp_path / "a.png").exists()


def test_nothing_is_replaced_unless_told(
    program, fails, encoded, photos, preset, tmp_path
):
    before = encoded.read_bytes()
    command = ["encode", photos, encoded, "--preset", preset]
    assert "Add --overwrite" in fails(*command)
    assert encoded.read_bytes() == before
    assert program(*command, "--overwrite", "--image-size", 8)[0] == 0
    assert arrays(encoded)["codes"].shape == (5, 2, 2)

    out = tmp_path / "out"
    assert program("decode", encoded, out)[0] == 0
    assert "Add --overwrite" in fails("decode", encoded, out)
    assert program("decode", encoded, out, "--overwrite")[0] == 0
    file = photos / "notes.txt"
    assert "OUTDIR is a folder" in fails("decode", encoded, file)


def test_unreadable_images_while_encoding(
    program, fails, photos, preset, tmp_path
):
    (photos / "b.png").write_bytes(b"no picture")
    path = tmp_path / "codes.npz"
    command = ["encode", photos, path, "--preset", preset]
    assert "b.png is not a picture" in fails(*command)
    assert not path.exists()
    status, _, error = program(*command, "--skip-errors")
    assert status == 1 and "b.png" in error
    names = ["a.png", "c.png", "inner/a.png", "inner/d.png"]
    assert arrays(path)["names"].tolist() == names
    for file in photos.rglob("*.png"):
        file.write_bytes(b"")
    message = program(*command, "--overwrite", "--skip-errors")[2]
    assert "not one of the images" in message
    assert arrays(path)["names"].tolist() == names


def test_wrong_usage(fails, photos, preset, tmp_path):
    out = tmp_path / "codes.txt"
    message = fails("encode", photos, out, "--preset", preset, status=2)
    assert "must end in .npz" in message
    fails("encode", photos, status=2)
    fails("decode", "codes.npz", status=2)


def test_folders_that_cannot_be_written(
    fails, encoded, photos, preset, tmp_path, monkeypatch
):
    """Said before anything is computed, which may take long."""
    monkeypatch.setattr(VQAutoencoder, "from_preset", None)
    file = photos / "notes.txt"
    options = ["--preset", preset]
    for command in (
        ["encode", photos, file / "codes.npz", *options],
        ["decode", encoded, file / "deep" / "out"],
        ["reconstruct", photos / "a.png", file / "a.png", *options],
    ):
        message = fails(*command)
        assert "expected a folder" in message and str(file) in message
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    # The superuser may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode, **_: path != closed)
    message = fails("encode", photos, closed / "new" / "codes.npz", *options)
    assert "may not write" in message and str(closed) in message
    assert list(closed.iterdir()) == []


def test_tiles_give_the_codes_and_images_of_the_whole(
    program, preset, tmp_path
):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (25, 30, 3)).repeat(16, 0).repeat(14, 1)
    save(tmp_path / "large.png", image)
    common = ["--preset", preset]
    tiled = [*common, "--tile-size", "384"]
    for name, options in (("whole", common), ("tiled", tiled)):
        file = tmp_path / f"{name}.npz"
        command = ("encode", tmp_path / "large.png", file, *options)
        assert program(*command)[0] == 0
        assert program("decode", file, tmp_path / name, *options)[0] == 0
    codes = [
        np.load(tmp_path / f"{n}.npz")["codes"] for n in ("whole", "tiled")
    ]
    assert codes[0].shape == (1, 100, 105) and len(np.unique(codes[0])) > 8
    np.testing.assert_array_equal(*codes)
    images = [load(tmp_path / n / "large.png") for n in ("whole", "tiled")]
    # Rounding to bytes, of which sums in another order change a few.
    np.testing.assert_allclose(
        images[0].astype("int32"), images[1].astype("int32"), atol=1
    )


def test_tiles_of_a_size_that_no_code_has(program, preset, tmp_path):
    save(tmp_path / "image.png", np.zeros((16, 16, 3)))
    command = ("encode", tmp_path / "image.png", tmp_path / "codes.npz")
    status, _, error = program(
        *command, "--preset", preset, "--tile-size", "50"
    )
    assert status == 1 and "multiples of 4 pixels" in error
    assert not (tmp_path / "codes.npz").exists()
