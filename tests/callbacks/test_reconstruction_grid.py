import importlib.util
import os

import keras
import numpy as np
import pytest
from feeding import batches
from PIL import Image

import keras_vq
from keras_vq.callbacks import ReconstructionGrid


@pytest.fixture
def images():
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, (5, 8, 8, 3)).astype("float32")


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return keras_vq.models.VQVAE(
        hidden_units=8, residual_units=4, codebook_size=8, codebook_dim=4
    )


def as_bytes(images):
    levels = np.rint((np.asarray(images, "float64") + 1) * 127.5)
    return np.clip(levels, 0, 255).astype("uint8")


def pictures(path, rows, columns, height, width):
    """Cuts a sheet with padding 2 between images, 6 between pairs of rows."""
    sheet = np.asarray(Image.open(path))
    tops = [2 + r * (height + 2) + (r // 2) * 4 for r in range(rows)]
    assert sheet.shape[0] == tops[-1] + height + 2
    assert sheet.shape[1] == columns * (width + 2) + 2
    return [
        [
            sheet[t : t + height, x : x + width]
            for x in range(2, columns * (width + 2), width + 2)
        ]
        for t in tops
    ]


def test_each_epoch_shows_originals_above_reconstructions(
    model, images, tmp_path
):
    model.compile(keras.optimizers.Adam(1e-2))
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(as_bytes(self.model(images, training=False)))

    grid = ReconstructionGrid(
        images, tmp_path / "grids", columns=3, scale=1, tensorboard=False
    )
    model.fit(images, epochs=2, verbose=0, callbacks=[Spy(), grid])
    names = ["epoch_0001.png", "epoch_0002.png"]
    assert sorted(os.listdir(tmp_path / "grids")) == names
    assert (seen[0] != seen[1]).any()
    for name, reconstruction in zip(names, seen, strict=True):
        rows = pictures(tmp_path / "grids" / name, 4, 3, 8, 8)
        for index, original in enumerate(as_bytes(images)):
            pair, column = divmod(index, 3)
            np.testing.assert_array_equal(rows[2 * pair][column], original)
            np.testing.assert_array_equal(
                rows[2 * pair + 1][column], reconstruction[index]
            )


def test_every_and_the_last_epoch(model, images, tmp_path):
    model.compile()
    grid = ReconstructionGrid(images, tmp_path, every=2, tensorboard=False)
    model.fit(images, epochs=3, verbose=0, callbacks=[grid])
    assert sorted(os.listdir(tmp_path)) == ["epoch_0002.png", "epoch_0003.png"]


def test_averaged_weights_are_shown_and_training_goes_on_without(
    model, images, tmp_path
):
    model.compile(keras.optimizers.SGD(0.5), weight_ema=0.9)
    grid = ReconstructionGrid(
        images, tmp_path, columns=5, scale=1, tensorboard=False
    )
    model.fit(images, epochs=3, verbose=0, callbacks=[grid])
    raw = as_bytes(model(images, training=False))
    with model.averaged_weights():
        averaged = as_bytes(model(images, training=False))
    assert (raw != averaged).any()
    rows = pictures(tmp_path / "epoch_0003.png", 2, 5, 8, 8)
    np.testing.assert_array_equal(np.stack(rows[1]), averaged)

    # The callback has swapped weights twice an epoch: nothing may remain.
    keras.utils.set_random_seed(0)
    twin = keras_vq.models.VQVAE(
        hidden_units=8, residual_units=4, codebook_size=8, codebook_dim=4
    )
    twin.compile(keras.optimizers.SGD(0.5), weight_ema=0.9)
    twin.fit(images, epochs=3, verbose=0)
    for a, b in zip(model.weights, twin.weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_grey_images_bytes_and_datasets(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras_vq.models.VQVAE(
        hidden_units=8,
        residual_units=4,
        codebook_size=8,
        codebook_dim=4,
        channels=1,
    )
    model.compile()
    levels = np.arange(4 * 64, dtype="uint8").reshape(4, 8, 8, 1)
    floats = model.preprocess(levels)
    labelled = batches(floats, range(4), size=3)
    grids = [
        ReconstructionGrid(
            source, tmp_path / name, max_images=2, tensorboard=False
        )
        for name, source in (("bytes", levels), ("dataset", labelled))
    ]
    model.fit(labelled, epochs=1, verbose=0, callbacks=grids)
    first = (tmp_path / "bytes" / "epoch_0001.png").read_bytes()
    assert first == (tmp_path / "dataset" / "epoch_0001.png").read_bytes()
    image = Image.open(tmp_path / "bytes" / "epoch_0001.png")
    # 8 pixels are enlarged 8 times; two pairs of 64, 2 pixels apart.
    assert (image.mode, image.size) == ("L", (2 * 66 + 2, 2 * 66 + 2))
    np.testing.assert_array_equal(
        np.asarray(image)[2:66:8, 2:66:8], levels[0, ..., 0]
    )


def test_without_tensorboard_nothing_fails(
    model, images, tmp_path, monkeypatch
):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *a: None if name == "tensorboard" else found(name, *a),
    )
    model.compile()
    grid = ReconstructionGrid(images, tmp_path)
    model.fit(images, epochs=1, verbose=0, callbacks=[grid])
    assert os.listdir(tmp_path) == ["epoch_0001.png"]
    with pytest.raises(ImportError, match="pip install"):
        ReconstructionGrid(images, tmp_path, tensorboard=True)


def test_tensorboard_gets_the_same_sheet(model, images, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing import event_accumulator

    model.compile()
    grid = ReconstructionGrid(images, tmp_path, log_dir=tmp_path / "events")
    model.fit(images, epochs=2, verbose=0, callbacks=[grid])
    events = event_accumulator.EventAccumulator(
        str(tmp_path / "events"), size_guidance={"tensors": 0}
    ).Reload()
    shown = events.Tensors("reconstruction")
    assert [event.step for event in shown] == [1, 2]
    import io

    for event in shown:
        picture = Image.open(io.BytesIO(event.tensor_proto.string_val[2]))
        path = tmp_path / f"epoch_{event.step:04d}.png"
        np.testing.assert_array_equal(
            np.asarray(picture), np.asarray(Image.open(path))
        )


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"images": np.zeros((8, 8, 3))}, "Expected images of shape"),
        ({"images": np.zeros((1, 8, 8, 2))}, "1 or 3 channels"),
        ({"every": 0}, "every=0"),
        ({"columns": 0}, "columns=0"),
        ({"max_images": 0}, "max_images=0"),
        ({"scale": 0}, "scale=0"),
    ],
)
def test_mistakes_are_found_when_the_callback_is_made(
    arguments, message, tmp_path
):
    arguments = {"images": np.zeros((1, 8, 8, 3)), **arguments}
    with pytest.raises(ValueError, match=message):
        ReconstructionGrid(directory=tmp_path / "grids", **arguments)
    assert not (tmp_path / "grids").exists()
