"""on_error: what takes a bad example's place, the budget, the messages."""

import logging
import shutil

import numpy as np
import pytest
from engines import TENSORFLOW
from pictures import encode, noise

import keras_vq
from keras_vq.data import (
    ImageError,
    TooManyBadImagesError,
    from_folder,
    named_errors,
    pipeline_of,
)

# What takes the place of a bad example.

BAD = {3: b"", 4: b"<html>", 7: b"text", 11: b""}


def write_folder(directory, bad):
    """Twelve pictures of several sizes; `bad` ones have other contents."""
    directory.mkdir()
    for i in range(12):
        data = encode(noise(20 + i, 31 - i, seed=i), "PNG")
        (directory / f"{i:02}.png").write_bytes(bad.get(i, data))
    return directory


@pytest.fixture
def bad_folder(tmp_path):
    return write_folder(tmp_path / "bad", BAD)


@pytest.fixture
def replaced(tmp_path):
    """The same pictures, in which the next good one was put by hand."""
    good = {
        i: encode(noise(20 + j, 31 - j, seed=j), "PNG")
        for i, j in {3: 5, 4: 5, 7: 8, 11: 0}.items()
    }
    return write_folder(tmp_path / "replaced", good)


RANDOM = dict(
    image_size=(12, 14),
    resize=18,
    crop="random",
    flip=True,
    shuffle=True,
    batch_size=4,
    seed=5,
)
SKIP = dict(on_error="skip", max_bad_fraction=0.4)


def bits(dataset, count):
    return [np.asarray(batch).tobytes() for batch in dataset.take(count)]


@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("shard", [None, (0, 3), (1, 3), (2, 3)])
def test_the_next_good_one_takes_the_place(bad_folder, replaced, shard, cache):
    options = dict(repeat=True, shard=shard, cache=cache, **RANDOM)
    whole = bits(from_folder(replaced, **options), 9)
    dataset = from_folder(bad_folder, **options, **SKIP)
    assert dataset.element_spec.shape == (4, 12, 14, 3)
    assert bits(dataset, 9) == whole
    assert len(pipeline_of(dataset).skipped) >= 3
    # A run that starts late has met nothing, and sees the same.
    late = from_folder(bad_folder, start_step=6, **options, **SKIP)
    assert bits(late, 3) == whole[6:]
    assert bits(pipeline_of(late).start_at(2), 3) == whole[2:5]


def test_drop_remainder_fills_too(bad_folder, replaced):
    options = dict(drop_remainder=True, **RANDOM)
    dataset = from_folder(bad_folder, **options, **SKIP)
    assert len(dataset) == 3 and dataset.element_spec.shape[0] == 4
    assert bits(dataset, 3) == bits(from_folder(replaced, **options), 3)


def test_a_finite_pass_counts_no_picture_twice(bad_folder, tmp_path):
    good = tmp_path / "good"
    shutil.copytree(bad_folder, good)
    for i in BAD:
        (good / f"{i:02}.png").unlink()
    options = dict(image_size=10, batch_size=3)
    dataset = from_folder(bad_folder, **options, **SKIP)
    batches = [np.asarray(batch) for batch in dataset]
    assert [len(batch) for batch in batches] == [3, 1, 2, 2]
    expected = [np.asarray(b) for b in from_folder(good, **options)]
    np.testing.assert_array_equal(
        np.concatenate(batches), np.concatenate(expected)
    )


def test_a_batch_of_bad_ones_alone_is_left_out(bad_folder):
    dataset = from_folder(bad_folder, image_size=10, batch_size=1, **SKIP)
    for _ in range(2):
        assert [len(batch) for batch in dataset] == [1] * 8
    random = from_folder(bad_folder, **{**RANDOM, "batch_size": 1}, **SKIP)
    assert [len(batch) for batch in random] == [1] * 8


def test_a_bad_first_picture_tells_no_size(tmp_path):
    directory = tmp_path / "sizes"
    directory.mkdir()
    for i in range(5):
        data = encode(noise(8, 9, seed=i), "PNG") if i else b"\x89PNG"
        (directory / f"{i}.png").write_bytes(data)
    (batch,) = from_folder(directory, on_error="skip")
    assert batch.shape == (4, 8, 9, 3)


def test_each_bad_file_is_read_once(bad_folder, monkeypatch):
    from keras_vq.data import sources

    names, decode = [], sources.decode_image

    def counted(data, channels, max_pixels, name):
        names.append(name)
        return decode(data, channels, max_pixels, name)

    monkeypatch.setattr(sources, "decode_image", counted)
    dataset = from_folder(bad_folder, image_size=8, batch_size=12, **SKIP)
    for _ in range(3):
        list(dataset)
    for i in range(12):
        path = str(bad_folder / f"{i:02}.png")
        assert names.count(path) == (1 if i in BAD else 3)


# The budget, the log, and the error in `fit`.


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        data = encode(noise(8, 8, seed=i), "PNG")
        (tmp_path / f"{i}.png").write_bytes(data)
    return tmp_path


@pytest.mark.parametrize(
    "fraction, allowed", [(0, 0), (0.01, 1), (0.25, 3), (0.29, 3), (1, 11)]
)
def test_the_budget(tmp_path, fraction, allowed):
    options = dict(
        image_size=8, on_error="skip", max_bad_fraction=fraction, batch_size=2
    )
    for count in (allowed, allowed + 1):
        directory = tmp_path / str(count)
        write_folder(directory, dict.fromkeys(range(count), b""))
        dataset = from_folder(directory, **options)
        if count <= allowed:
            assert sum(len(batch) for batch in dataset) == 12 - count
            continue
        # A second attempt has no other end.
        for _ in range(2):
            with pytest.raises(TooManyBadImagesError) as caught:
                with named_errors():
                    list(dataset)
        assert f"at most {allowed} bad" in str(caught.value)
        assert f"Received: {count} so far" in str(caught.value)
        for i in range(min(count, 5)):
            assert f"{i:02}.png is empty" in str(caught.value)


@pytest.mark.parametrize("fraction", [-0.1, 1.5, "1 %", None, True])
def test_impossible_budgets(folder, fraction):
    with pytest.raises(ValueError, match="max_bad_fraction.*Received"):
        from_folder(folder, on_error="skip", max_bad_fraction=fraction)
    with pytest.raises(ValueError, match="'raise', 'skip'.*'ignore'"):
        from_folder(folder, on_error="ignore")


def test_few_lines_are_logged_for_many(tmp_path, caplog):
    for i in range(300):
        data = b"" if i < 250 else encode(noise(8, 8, seed=i), "PNG")
        (tmp_path / f"{i:03}.png").write_bytes(data)
    dataset = from_folder(
        tmp_path, image_size=8, on_error="skip", max_bad_fraction=0.9
    )
    with caplog.at_level(logging.INFO, "keras_vq.data"), named_errors():
        for _ in range(2):
            list(dataset)
    lines = [r.getMessage() for r in caplog.records]
    # One of the first, at 10, at 100, and the summary: threads run ahead.
    assert ".png is empty" in lines[0]
    assert 3 <= len(lines) <= 4
    assert lines[-1].startswith("250 of 300 examples are bad")
    assert ".png, " in lines[-1] and "skipped" in lines[-1]
    assert len(pipeline_of(dataset).skipped) == 250


@pytest.fixture
def model():
    # One for each test: JAX takes the variables away from a model whose `fit`
    # has failed.
    model = keras_vq.models.VQVAE(
        hidden_units=4, residual_units=2, codebook_size=4, codebook_dim=2
    )
    return model


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "adapt"])
@pytest.mark.parametrize("how", ["plain", "changed"])
def test_the_model_raises_the_datas_own_error(folder, model, method, how):
    (folder / "5a.png").write_bytes(b"<html>")
    dataset = from_folder(folder, image_size=8, batch_size=2)
    if how == "changed":
        dataset = dataset.map(lambda images: images)
    model.compile(run_eagerly=True)
    arguments = {} if method == "adapt" else {"verbose": 0}
    with pytest.raises(ImageError) as caught:
        getattr(model, method)(dataset, **arguments)
    assert type(caught.value) is ImageError
    assert str(caught.value).startswith(str(folder / "5a.png"))
    assert caught.value.__suppress_context__


def test_fit_goes_on_without_the_bad_ones_or_stops_above_the_budget(
    bad_folder, model
):
    model.compile()
    options = dict(image_size=8, batch_size=4, repeat=True, on_error="skip")
    dataset = from_folder(bad_folder, max_bad_fraction=0.4, **options)
    history = model.fit(dataset, epochs=2, steps_per_epoch=3, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert len(pipeline_of(dataset).skipped) == 4
    with pytest.raises(TooManyBadImagesError, match="03.png is empty"):
        model.fit(from_folder(bad_folder, **options), verbose=0)


def test_other_errors_stay_what_they_are(folder):
    good = from_folder(folder, image_size=8)
    batches = list(good)
    (folder / "1.png").write_bytes(b"")
    with pytest.raises(ImageError), named_errors():
        list(good)

    with pytest.raises(KeyError), named_errors():
        raise KeyError("x")
    if not TENSORFLOW:
        return
    import tensorflow as tf

    def check(images):
        return tf.debugging.assert_less(images, -2.0, "no such file")

    dataset = tf.data.Dataset.from_tensor_slices(batches)
    with pytest.raises(tf.errors.InvalidArgumentError, match="no such file"):
        with named_errors():
            list(dataset.map(lambda x: (check(x), x)[1]))
