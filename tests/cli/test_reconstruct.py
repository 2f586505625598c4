import os

import numpy as np
import pytest
from cli_helpers import assert_shows, load, reconstruction, save
from PIL import Image

import keras_vq


def files_below(folder):
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
    )


def test_a_folder_gives_what_the_model_gives(program, preset, photos, tmp_path):
    out = tmp_path / "out"
    status, text, error = program(
        "reconstruct", photos, out, "--preset", preset
    )
    assert (status, error) == (0, "")
    names = ["a.png", "b.png", "c.png", "inner/a.png", "inner/d.png"]
    assert files_below(out) == names
    ratios = []
    for name in names:
        image = load(photos / name)
        expected, _ = reconstruction(preset, image)
        assert_shows(load(out / name), expected)
        error = np.square(image.astype("float64") - load(out / name)).mean()
        ratios.append(10 * np.log10(255**2 / error))
    assert f"mean PSNR {np.mean(ratios):.2f} dB" in text
    # 32 codes are 5 bits; from 1 x 8 to 6 x 4 = 24 codes.
    assert "5 images to" in text and "40 to 120 bits per image" in text


def test_one_file_with_any_name(program, preset, photos, tmp_path):
    (photos / "b.png").rename(tmp_path / "picture")
    command = ["reconstruct", tmp_path / "picture", "--preset", preset]
    assert program(*command, tmp_path / "seen.PNG")[0] == 0
    (tmp_path / "folder").mkdir()
    assert program(*command, tmp_path / "folder")[0] == 0
    expected, _ = reconstruction(preset, load(tmp_path / "picture"))
    assert_shows(load(tmp_path / "seen.PNG"), expected)
    inside = load(tmp_path / "folder" / "picture.png")
    assert_shows(inside, expected)


def test_side_by_side(program, preset, photos, tmp_path):
    status, _, _ = program(
        "reconstruct", photos / "b.png", tmp_path / "pair.png",
        "--preset", preset, "--side-by-side",
    )  # fmt: skip
    assert status == 0
    image = load(photos / "b.png")
    expected, _ = reconstruction(preset, image)
    pair = load(tmp_path / "pair.png")
    np.testing.assert_array_equal(pair[:, :13], image)
    assert_shows(pair[:, 13:], expected)


def test_a_model_of_grey_images(program, grey_preset, photos, tmp_path):
    status, _, error = program(
        "reconstruct", photos / "b.png", tmp_path / "grey.png",
        "--preset", grey_preset,
    )  # fmt: skip
    assert (status, error) == (0, "")
    grey = np.asarray(Image.open(photos / "b.png").convert("L"))[..., None]
    expected, _ = reconstruction(grey_preset, grey)
    assert_shows(load(tmp_path / "grey.png"), expected[..., 0])


def test_image_size_scales_and_crops_the_middle(program, preset, tmp_path):
    # Three bands; scaled to a height of 8, the middle 8 x 8 is all green.
    image = np.zeros((16, 64, 3), "uint8")
    image[:, :20, 0] = image[:, 20:44, 1] = image[:, 44:, 2] = 200
    save(tmp_path / "bands.png", image)
    for size, shape in (("8", (8, 8)), ("8x12", (8, 12))):
        status, _, _ = program(
            "reconstruct", tmp_path / "bands.png", tmp_path / "out.png",
            "--preset", preset, "--image-size", size, "--side-by-side",
            "--overwrite",
        )  # fmt: skip
        assert status == 0
        pair = load(tmp_path / "out.png")
        assert pair.shape == (shape[0], 2 * shape[1], 3)
        np.testing.assert_allclose(
            pair[:, 1:7], [[[0, 200, 0]] * 6] * 8, atol=3
        )


def test_real_photographs(program, preset, data_dir, tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    for path in sorted((data_dir / "photos").glob("*.jpg"))[:3]:
        os.symlink(path, source / path.name)
    out = tmp_path / "out"
    command = ["reconstruct", source, out, "--preset", preset]
    status, text, error = program(*command, "--image-size", "96x64")
    assert (status, error) == (0, "")
    assert len(files_below(out)) == 3
    assert "1920 bits per image" in text
    for path in source.iterdir():
        image = np.asarray(Image.open(path).convert("RGB"))
        scale = max(96 / image.shape[0], 64 / image.shape[1])
        size = [round(side * scale) for side in image.shape[1::-1]]
        image = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        left, top = ((s - t) // 2 for s, t in zip(size, (64, 96), strict=True))
        image = image.crop((left, top, left + 64, top + 96))
        expected, _ = reconstruction(preset, np.asarray(image))
        seen = load(out / f"{path.stem}.png").astype("float64")
        # Pillow's resampling differs by 2 of 255 at most, which can move a
        # few latents to another code.
        assert np.median(np.abs(seen - expected)) <= 1
        assert np.mean(np.abs(seen - expected) <= 4) > 0.9


def test_jpeg_follows_the_rule_of_the_package(
    program, preset, photos, tmp_path
):
    Image.open(photos / "b.png").save(photos / "b.jpg", quality=90)
    out = tmp_path / "out"
    assert program("reconstruct", photos, out, "--preset", preset)[0] == 0
    # Two files that would both be called b.png keep their whole names.
    assert {"b.jpg.png", "b.png.png", "a.png"} < set(files_below(out))
    image = keras_vq.data.decode_image((photos / "b.jpg").read_bytes())
    expected, _ = reconstruction(preset, image)
    assert_shows(load(out / "b.jpg.png"), expected)


def test_existing_results_are_kept_unless_told(
    program, fails, preset, photos, tmp_path
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "b.png").write_bytes(b"precious")
    command = ["reconstruct", photos, out, "--preset", preset]
    assert "b.png exists already. Add --overwrite" in fails(*command)
    assert files_below(out) == ["b.png"]
    assert program(*command, "--overwrite")[0] == 0
    assert len(files_below(out)) == 5
    assert load(out / "b.png").shape == (17, 13, 3)


def test_originals_are_never_replaced(fails, preset, photos):
    before = {path: path.read_bytes() for path in photos.rglob("*.png")}
    options = ["--preset", preset, "--overwrite"]
    fails("reconstruct", photos, photos, *options)
    fails("reconstruct", photos / "a.png", photos / "a.png", *options)
    fails("reconstruct", photos / "a.png", photos, *options)
    assert {p: p.read_bytes() for p in photos.rglob("*.png")} == before


def test_results_inside_the_source_are_no_source(program, preset, photos):
    command = ["reconstruct", photos, photos / "seen", "--preset", preset]
    assert program(*command)[0] == 0
    assert program(*command, "--overwrite")[0] == 0
    assert len(files_below(photos / "seen")) == 5


def test_damaged_images(program, fails, preset, photos, tmp_path):
    content = (photos / "b.png").read_bytes()
    (photos / "b.png").write_bytes(content[: len(content) // 2])
    (photos / "empty.jpg").write_bytes(b"")
    out = tmp_path / "out"
    command = ["reconstruct", photos, out, "--preset", preset]
    assert str(photos / "b.png") in fails(*command)

    status, text, error = program(*command, "--overwrite", "--skip-errors")
    assert status == 1
    assert "4 images to" in text
    lines = error.splitlines()
    assert lines[0].startswith("keras-vq: skipped: ") and "b.png" in lines[0]
    assert "empty.jpg" in lines[1]
    assert lines[2:] == ["keras-vq: error: 2 images could not be read, 4 could"]
    assert len(files_below(out)) == 4


def test_what_cannot_work_is_said_in_one_line(
    fails, preset, photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    out, options = tmp_path / "out", ["--preset", preset]
    missing = tmp_path / "nothing"
    assert str(missing) in fails("reconstruct", missing, out, *options)
    text = photos / "notes.txt"
    message = fails("reconstruct", text, out / "x.png", *options)
    assert "notes.txt is not a picture" in message
    missing.mkdir()
    assert "no images in" in fails("reconstruct", missing, out, *options)
    message = fails("reconstruct", photos, out, "--preset", "vqvae_nothing")
    assert "There is no preset 'vqvae_nothing'" in message
    message = fails("reconstruct", photos, text, *options)
    assert "the results need a folder" in message
    image = photos / "a.png"
    for words in (
        [image, out],
        [image, "a.jpg"],
        [image],
        [image, "x.png", "--image-size", "0"],
        [image, "x.png", "--image-size", "8x8x8"],
        [image, "x.png", "--batch-size", "-1"],
        [image, "x.png", "--pre", preset],
    ):
        fails("reconstruct", *words, status=2)
    assert not out.exists()


def test_a_damaged_preset(fails, preset, photos, tmp_path):
    import shutil

    shutil.copytree(preset, tmp_path / "preset")
    weights = tmp_path / "preset" / "model.weights.h5"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    message = fails(
        "reconstruct", photos, tmp_path / "o", "--preset", tmp_path / "preset"
    )
    assert "model.weights.h5 is not the file that was published" in message


def test_debug_shows_the_traceback(program, preset, tmp_path, monkeypatch):
    words = ["reconstruct", tmp_path / "nothing", "x.png", "--preset", preset]
    status, _, error = program("--debug", *words)
    assert status == 1 and "Traceback" in error
    assert error.splitlines()[-1].startswith("keras-vq: error: ")
    assert "Traceback" not in program(*words)[2]
    monkeypatch.setenv("KERAS_VQ_DEBUG", "1")
    assert "Traceback" in program(*words)[2]


@pytest.mark.parametrize("batch_size", [2, 16])
def test_batches_and_quiet(program, preset, photos, tmp_path, batch_size):
    out = tmp_path / "out"
    command = ["reconstruct", photos, out, "--preset", preset, "--quiet"]
    assert program(*command, "--batch-size", batch_size) == (0, "", "")
    for name in files_below(out):
        expected, _ = reconstruction(preset, load(photos / name))
        assert_shows(load(out / name), expected)
    assert len(files_below(out)) == 5
