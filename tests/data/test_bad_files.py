"""Every kind of bad file: the rule, the reason, and never above the cap."""

import os
import pathlib
import re
import shutil

import bad_files
import numpy as np
import pytest
from bad_files import ACCEPTED, CAPPED, KINDS, REFUSED, Kind
from engines import TENSORFLOW
from pictures import encode, noise
from PIL import GifImagePlugin

import keras_vq
from keras_vq.data import (
    ImageError,
    decode_image,
    from_arrays,
    from_folder,
    from_tfrecord,
    named_errors,
    pillow_decoders,
    pipeline_of,
    tf_decoders,
)

PICTURE = bad_files.real_picture()


def ids(kinds):
    return [kind.slug for kind in kinds]


@pytest.mark.parametrize("kind", ACCEPTED, ids=ids(ACCEPTED))
def test_what_is_accepted_has_pillows_pixels(kind: Kind):
    data = kind.make(PICTURE)
    difference = decode_image(data) - bad_files.as_pillow_has_it(data)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("kind", REFUSED, ids=ids(REFUSED))
def test_what_is_refused_is_named_from_fit_or_skipped(kind: Kind, tmp_path):
    bad = tmp_path / f"b{kind.suffix}"
    for name in ("a.png", "c.png", "d.png"):
        (tmp_path / name).write_bytes(encode(PICTURE, "PNG"))
    bad.write_bytes(kind.make(PICTURE))
    with (
        pytest.raises(ImageError, match=kind.refused) as caught,
        named_errors(),
    ):
        list(from_folder(tmp_path, image_size=512))
    assert str(bad) in str(caught.value)
    # What to do, in words; no traceback in the text.
    assert re.search(
        "[Tt]ake it out|Make it smaller|Convert it|resized|Get it anew",
        str(caught.value),
    )
    assert "Traceback" not in str(caught.value)
    dataset = from_folder(tmp_path, image_size=512, on_error="skip")
    (batch,) = dataset
    assert batch.shape == (3, 512, 512, 3)
    ((name, reason),) = pipeline_of(dataset).skipped
    assert name == str(bad) and re.search(kind.refused, reason)


def test_the_docs_have_a_rule_for_every_kind_and_no_other():
    page = pathlib.Path(keras_vq.__file__).parents[1] / "docs" / "data.md"
    if not page.is_file():
        pytest.skip("needs the repository's docs folder")
    section = page.read_text().split("## Bad examples")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (accepted|refused)\b", section, re.M)
    expected = [
        (kind.row, "refused" if kind.refused else "accepted") for kind in KINDS
    ]
    expected += [(row, "refused") for row in bad_files.BAD_RECORDS]
    expected += [(row, "refused") for row in OTHER_ROWS]
    assert sorted(rows) == sorted(expected)


OTHER_ROWS = (  # Each has a test of its own below.
    "file that this user may not read",
    "link to nothing",
    "named pipe",
    "record with a wrong checksum",
    "truncated TFRecord file",
    "TFRecord file with a damaged length",
    "float array, with NaN or without",
)


# What the file system has.


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        data = encode(noise(8, 8, seed=i), "PNG")
        (tmp_path / f"{i}.png").write_bytes(data)
    return tmp_path


def only_skipped(directory, **options):
    dataset = from_folder(directory, on_error="skip", **options)
    assert sum(len(batch) for batch in dataset) == 6
    (skipped,) = pipeline_of(dataset).skipped
    return skipped


def test_links_to_nothing_and_named_pipes(folder):
    link, pipe = folder / "3a.png", folder / "9.jpg"
    os.symlink(folder / "nowhere.png", link)
    assert only_skipped(folder) == (
        str(link),
        f"{link} cannot be read: No such file or directory. Expected a "
        "picture that this user may read; repair it, or take it out.",
    )
    link.unlink()
    os.mkfifo(pipe)
    assert "no file with a content" in only_skipped(folder).reason


def test_a_folder_called_like_a_picture_is_a_folder(folder):
    (folder / "x.png").mkdir()
    (folder / "x.png" / "y.png").write_bytes(encode(noise(8, 8), "PNG"))
    dataset = from_folder(folder)
    assert pipeline_of(dataset).num_examples == 7
    assert sum(len(batch) for batch in dataset) == 7


def test_a_file_that_may_not_be_read(folder, monkeypatch):
    bad = folder / "2a.png"
    shutil.copy(folder / "2.png", bad)
    if os.geteuid():
        bad.chmod(0)
    else:  # The superuser may read everything.
        real = open

        def forbidden(path, *args, **kwargs):
            if str(path) == str(bad):
                raise PermissionError(13, "Permission denied", path)
            return real(path, *args, **kwargs)

        monkeypatch.setattr("builtins.open", forbidden)
    assert "Permission denied" in only_skipped(folder).reason


def test_trouble_of_the_machine_is_never_skipped(folder, monkeypatch):
    def failing(path, *args, **kwargs):
        raise OSError(5, "Input/output error")

    dataset = from_folder(
        folder, image_size=8, on_error="skip", max_bad_fraction=1
    )
    monkeypatch.setattr("keras_vq.data.sources.open", failing, raising=False)
    with pytest.raises(OSError, match="Input/output error.*0.png"):
        with named_errors():
            list(dataset)
    assert pipeline_of(dataset).skipped == []


# TFRecord files and arrays.


def records(count):
    return [
        bad_files.example(image=encode(noise(8, 8, seed=i), "PNG"), label=[i])
        for i in range(count)
    ]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("row", bad_files.BAD_RECORDS)
def test_bad_records(row, first, tmp_path):
    bad, reason = bad_files.BAD_RECORDS[row]
    content = records(3)
    content.insert(0 if first else 2, bad)
    path = bad_files.write_records(tmp_path / "a.tfrecord", content)
    place = 0 if first else sum(len(r) + 16 for r in content[:2])
    with pytest.raises(ImageError, match=reason) as caught, named_errors():
        list(from_tfrecord(path, labels=True))
    assert f"at byte {place} of {path}" in str(caught.value)
    dataset = from_tfrecord(path, labels=True, on_error="skip")
    ((_, labels),) = dataset
    assert np.asarray(labels).tolist() == [0, 1, 2]
    ((name, why),) = pipeline_of(dataset).skipped
    assert name == f"The record at byte {place} of {path}"
    assert re.search(reason, why)


def test_a_wrong_checksum_is_one_bad_record(tmp_path):
    content = records(4)
    path = pathlib.Path(bad_files.write_records(tmp_path / "a", content))
    place = len(content[0]) + 16 + 100
    path.write_bytes(bad_files.flipped(path.read_bytes(), place))
    with pytest.raises(ImageError, match="checksum"), named_errors():
        list(from_tfrecord(path))
    dataset = from_tfrecord(path, labels=True, on_error="skip")
    ((_, labels),) = dataset
    assert np.asarray(labels).tolist() == [0, 2, 3]
    ((_, reason),) = pipeline_of(dataset).skipped
    assert "does not match its checksum" in reason


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_files_in_which_nobody_can_count_what_is_missing(tmp_path, on_error):
    content = records(4)
    path = pathlib.Path(bad_files.write_records(tmp_path / "a", content))
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ImageError, match="truncated.*Copy the file anew"):
        from_tfrecord(path, on_error=on_error)
    path.write_bytes(bad_files.flipped(whole, len(content[0]) + 16 + 6))
    with pytest.raises(ImageError, match="length is wrong.*Copy the file"):
        from_tfrecord(path, on_error=on_error)


def test_wrong_keys_are_no_bad_records(tmp_path):
    path = bad_files.write_records(tmp_path / "a", records(40))
    with pytest.raises(ImageError, match="no feature 'picture'.*'image'"):
        from_tfrecord(path, image_key="picture", on_error="skip")


@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_arrays_with_nan(on_error):
    images = np.full((4, 8, 8, 3), np.nan, np.float32)
    with pytest.raises(ValueError, match="must be uint8.*float32"):
        from_arrays(images, on_error=on_error)
    dataset = from_arrays(np.zeros((4, 8, 8, 3), np.uint8), on_error=on_error)
    assert len(dataset) == 1 and pipeline_of(dataset).skipped == []


# The cap on the pixels.


@pytest.fixture
def decoded(monkeypatch):
    """What the engine's decoders were asked to decode."""
    module = tf_decoders if TENSORFLOW else pillow_decoders
    contents, decode = [], module.decode

    def counted(data, header):
        contents.append(header.kind)
        return decode(data, header)

    monkeypatch.setattr(module, "decode", counted)
    return contents


@pytest.mark.parametrize("kind", CAPPED, ids=ids(CAPPED))
def test_nothing_above_the_cap_is_decoded(kind, decoded):
    with pytest.raises(ImageError, match="more than max_pixels"):
        decode_image(kind.make(PICTURE))
    assert decoded == []
    decode_image(encode(PICTURE, "PNG"))
    assert decoded == ["png"]


@pytest.mark.parametrize("kind", ACCEPTED, ids=ids(ACCEPTED))
def test_the_cap_holds_to_the_pixel(kind, decoded):
    data, pixels = kind.make(PICTURE), PICTURE[..., 0].size
    with pytest.raises(ImageError, match="more than max_pixels"):
        decode_image(data, max_pixels=pixels - 1)
    assert decoded == []
    assert decode_image(data, max_pixels=pixels).shape == PICTURE.shape
    assert len(decoded) == 1


def test_of_an_animation_only_the_first_frame_is_decoded(monkeypatch):
    """A thousand frames would be a thousand times the capped memory."""
    seen = []

    def seeing(function):
        def wrapper(data=None, **arguments):
            seen.append(arguments.get("contents") or data.getvalue())
            return function(*[data] * (data is not None), **arguments)

        return wrapper

    if TENSORFLOW:
        import tensorflow as tf

        place = tf.raw_ops, "DecodeImage"
    else:
        place = GifImagePlugin, "GifImageFile"
    monkeypatch.setattr(*place, seeing(getattr(*place)))
    long = bad_files.animated(PICTURE, "GIF")
    image = decode_image(long)
    assert len(seen) == 1 and len(seen[0]) < len(long) / 2
    np.testing.assert_array_equal(image, bad_files.as_pillow_has_it(long))
