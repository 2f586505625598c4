"""Both engines, tf.data and grain, make the same batches, bit for bit.

The digests were made once, by tf.data alone. Whichever engine and decoders
Keras' backend brings has to come to the same.
"""

import hashlib
import itertools
import sys

import numpy as np
import pytest
from pictures import encode, noise

from keras_vq.data import (
    from_arrays,
    from_folder,
    from_tfds,
    from_tfrecord,
    pipeline_of,
)

CUT = dict(image_size=(12, 14), resize=18, crop="random", flip=True, seed=5)
CASES = {
    "finite": ("arrays", dict(batch_size=4), 3),
    "shuffled": ("arrays", dict(batch_size=4, shuffle=True, seed=3), 6),
    "flipped": ("arrays", dict(batch_size=5, flip=True, seed=1), 6),
    "endless": ("arrays", dict(repeat=True, shuffle=True, batch_size=4), 9),
    "late": (
        "arrays",
        dict(repeat=True, shuffle=True, batch_size=4, start_step=1000),
        4,
    ),
    "shard": (
        "arrays",
        dict(repeat=True, shuffle=True, batch_size=2, shard=(1, 3)),
        5,
    ),
    "subset": (
        "arrays",
        dict(subset=(0.3, 0.9), batch_size=3, drop_remainder=True),
        0,
    ),
    "grey": ("folder", dict(image_size=8, channels=1), 1),
    "cut": ("folder", dict(shuffle=True, batch_size=4, **CUT), 5),
    "cut, endless": (
        "folder",
        dict(repeat=True, shuffle=True, batch_size=4, cache=True, **CUT),
        7,
    ),
    "bilinear": (
        "folder",
        dict(image_size=9, crop=None, interpolation="bilinear"),
        1,
    ),
    "area": ("folder", dict(image_size=11, interpolation="area"), 1),
    "enlarged": ("folder", dict(image_size=(40, 33), batch_size=3), 4),
    "records": ("records", dict(labels=True, shuffle=True, batch_size=4), 6),
}
DIGESTS = {
    "finite": "54543dc3cb0e5613",
    "shuffled": "3ea8d64bd44cec27",
    "flipped": "91ad38c4eaf0b954",
    "endless": "78f79227106560de",
    "late": "7bf6e118859d6bd9",
    "shard": "8d78549d40455878",
    "subset": "d49737c46050cff3",
    "grey": "8f545ea7cd469793",
    "cut": "e8f74e2f62b62313",
    "cut, endless": "84fdf4527e378310",
    "bilinear": "7bca8446d837038b",
    "area": "7c3b9a6dada062d0",
    "enlarged": "462a974190666732",
    "records": "a0e31989412f47a4",
    "CIFAR-10": "43ecda5243852b87",
    "photos": "7bcf8e7fa759885f",
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Three functions from options to a dataset."""
    folder = tmp_path_factory.mktemp("pictures")
    pictures = [noise(20 + i, 31 - i, seed=i) for i in range(11)]
    for i, picture in enumerate(pictures):
        (folder / f"{i:02}.png").write_bytes(encode(picture, "PNG"))
    images = np.stack([noise(6, 7, seed=i) for i in range(11)])
    records = folder / "pictures.tfrecord"
    write_record_file(records, [encode(image, "PNG") for image in images])

    return {
        "arrays": lambda **options: from_arrays(
            images, np.arange(11), **options
        ),
        "folder": lambda **options: from_folder(folder, **options),
        "records": lambda **options: from_tfrecord(records, **options),
    }


def write_record_file(path, pictures):
    """A TFRecord file made with this package, which other tests compare."""
    from keras_vq.data.examples import serialize_example
    from keras_vq.data.tfrecord import write_records

    write_records(
        path,
        [
            serialize_example({"image": picture, "label": [i]})
            for i, picture in enumerate(pictures)
        ],
    )


def digest(dataset, count):
    """Of so many batches, over as many epochs as they take."""
    seen = hashlib.sha256()
    epochs = itertools.chain.from_iterable(itertools.repeat(dataset))
    for batch in itertools.islice(epochs, count):
        for part in batch if isinstance(batch, tuple) else (batch,):
            part = np.asarray(part)
            seen.update(f"{part.dtype}{part.shape}".encode())
            seen.update(part.tobytes())
    return seen.hexdigest()[:16]


@pytest.mark.parametrize("case", CASES)
def test_batches_are_the_same_on_every_engine(case, sources):
    source, options, count = CASES[case]
    dataset = sources[source](**options)
    count = count or 2 * pipeline_of(dataset).steps_per_epoch
    assert digest(dataset, count) == DIGESTS[case]


def test_real_jpegs_make_the_same_batches_on_every_engine(data_dir):
    dataset = from_tfrecord(
        data_dir / "cifar10" / "test.tfrecord",
        batch_size=64,
        image_size=28,
        resize=32,
        crop="random",
        flip=True,
        shuffle=True,
        repeat=True,
        labels=True,
    )
    assert digest(dataset.take(6), 6) == DIGESTS["CIFAR-10"]
    dataset = from_folder(
        data_dir / "photos",
        batch_size=4,
        image_size=64,
        resize=72,
        crop="random",
        shuffle=True,
        repeat=True,
    )
    assert digest(dataset.take(3), 3) == DIGESTS["photos"]


def test_without_tfds_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    message = r"keras_vq\[datasets\].*`from_folder`, `from_array_record`"
    with pytest.raises(ImportError, match=message):
        from_tfds("cifar10")
