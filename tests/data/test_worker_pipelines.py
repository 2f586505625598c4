"""Workers share each batch of each source: every image once, on one of them."""

import contextlib
import functools
import struct

import keras
import numpy as np
import pytest
from engines import TENSORFLOW

from keras_vq import data
from keras_vq.data.worker_pipeline import part_of_worker

if not TENSORFLOW:
    pytest.skip("the workers are TensorFlow's", allow_module_level=True)

import tensorflow as tf

COUNT, SIZE = 20, 32


def pictures():
    """uint8 images, each with a colour of its own."""
    images = np.zeros((COUNT, SIZE, SIZE, 3), np.uint8)
    images[:] = 12 * np.arange(COUNT)[:, None, None, None]
    return images


def numbers(images) -> list:
    """Which of the pictures these are."""
    colours = (np.asarray(images)[:, 0, 0, 0] + 1) * 127.5
    return np.round(colours / 12).astype(int).tolist()


def make_tfrecord(folder, **options):
    path = folder / "images.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for image in pictures():
            png = tf.io.encode_png(image).numpy()
            value = tf.train.BytesList(value=[png])
            feature = {"image": tf.train.Feature(bytes_list=value)}
            example = tf.train.Example(
                features=tf.train.Features(feature=feature)
            )
            writer.write(example.SerializeToString())
    return data.from_tfrecord(path, image_size=SIZE, **options)


def make_folder(folder, **options):
    for index, image in enumerate(pictures()):
        path = folder / "pictures" / f"{index:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tf.io.encode_png(image).numpy())
    return data.from_folder(folder / "pictures", image_size=SIZE, **options)


def make_arrays(folder, **options):
    return data.from_arrays(pictures(), **options)


def make_cifar(folder, **options):
    planes = pictures().transpose(0, 3, 1, 2).reshape(COUNT, -1)
    rows = b"".join(b"\0" + row.tobytes() for row in planes)
    for number in range(1, 6):
        part = slice((number - 1) * 4 * 3073, number * 4 * 3073)
        (folder / f"data_batch_{number}.bin").write_bytes(rows[part])
    return data.from_cifar10(folder, "train", **options)


def make_idx(folder, **options):
    grey = pictures()[..., 0]
    header = struct.pack(">BBBB3I", 0, 0, 8, 3, *grey.shape)
    (folder / "images-idx3-ubyte").write_bytes(header + grey.tobytes())
    return data.from_idx(folder / "images-idx3-ubyte", **options)


def make_tfds(folder, **options):
    tfds = pytest.importorskip("tensorflow_datasets")
    tfds.dataset_builders.store_as_tfds_dataset(
        name="pictures",
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"image": tfds.features.Image(shape=(SIZE, SIZE, 3))}
        ),
        split_datasets={
            "train": tf.data.Dataset.from_tensor_slices({"image": pictures()})
        },
        data_dir=folder,
        disable_shuffling=True,
    )
    return data.from_tfds("pictures", data_dir=folder, **options)


SOURCES = [
    make_tfrecord,
    make_folder,
    make_arrays,
    make_cifar,
    make_idx,
    make_tfds,
]


class Asked(Exception):
    """Ends a worker once it has said what it was given."""


def parts(make, workers, replicas):
    """What `workers` with so many replicas each are given."""
    datasets = [make(index) for index in range(workers)]
    contexts = [
        tf.distribute.InputContext(workers, worker, workers * replicas)
        for worker in range(workers)
    ]
    told = []

    def ask(own):
        told.append(own)
        raise Asked

    # The others' facts, as the collective operation would bring them.
    for dataset, context in zip(datasets, contexts, strict=True):
        with contextlib.suppress(Asked):
            part_of_worker(dataset, context, ask)
    return [
        part_of_worker(dataset, context, lambda _: told)
        for dataset, context in zip(datasets, contexts, strict=True)
    ]


def steps_of(part, replicas, count):
    """For each step, the parts of the replicas of one worker."""
    batches = list(part.take(count * replicas))
    return [batches[i : i + replicas] for i in range(0, len(batches), replicas)]


# The division is the same for all sources.
@pytest.mark.parametrize(
    "make, workers, replicas",
    [(make, 2, 1) for make in SOURCES]
    + [(make_arrays, 2, 2), (make_arrays, 3, 1)],
)
def test_parts_are_the_batches_of_one_device(make, workers, replicas, tmp_path):
    options = {"batch_size": 6, "shuffle": True, "repeat": True}
    whole = make(tmp_path, **options)
    want = [numbers(batch) for batch in whole.take(7)]
    # Two epochs of 20: each picture twice, and two once more.
    assert sorted(sum(want, [])[:40]) == sorted([*range(COUNT)] * 2)
    if make is not make_tfds:
        make = functools.partial(make, tmp_path, **options)
    else:
        make = functools.partial(
            data.from_tfds, "pictures", data_dir=tmp_path, **options
        )
    found = parts(lambda _: make(), workers, replicas)
    assert all(steps is None for _, steps in found)
    per_worker = [steps_of(part, replicas, 7) for part, _ in found]
    got = [
        [n for worker in step for part in worker for n in numbers(part)]
        for step in zip(*per_worker, strict=True)
    ]
    assert got == want


def test_last_batch_with_fewer_images_than_replicas(tmp_path):
    make = functools.partial(make_arrays, tmp_path, batch_size=19)
    found = parts(lambda _: make(), 2, 2)
    assert [steps for _, steps in found] == [2, 2]
    last = [steps_of(part, 2, 2)[1] for part, _ in found]
    assert [len(part) for worker in last for part in worker] == [1, 0, 0, 0]
    assert numbers(last[0][0]) == [19]


def test_every_epoch_is_divided_anew(tmp_path):
    """Also where one worker has looked into the data before."""

    def make(worker):
        dataset = make_arrays(tmp_path, batch_size=8, shuffle=True, seed=3)
        for _ in range(worker):
            next(iter(dataset))
        return dataset

    found = parts(make, 2, 1)
    orders = []
    for _ in range(3):
        epoch = [
            sum((numbers(batch) for batch in part), []) for part, _ in found
        ]
        assert sorted(sum(epoch, [])) == list(range(COUNT))
        orders.append(epoch)
    assert orders[0] != orders[1]


def test_empty_parts_and_augmentation(tmp_path):
    layer = keras.layers.RandomBrightness(0.1, seed=0)
    make = functools.partial(
        make_arrays, tmp_path, batch_size=19, image_size=SIZE, augment=layer
    )
    found = parts(lambda _: make(), 2, 1)
    sizes = [[len(batch) for batch in part] for part, _ in found]
    assert sizes == [[10, 1], [9, 0]]


def test_a_worker_reads_no_images_of_the_others(tmp_path, monkeypatch):
    from keras_vq.data import sources

    make_folder(tmp_path)
    reads = []
    read = sources.EncodedSource.read
    monkeypatch.setattr(
        sources.EncodedSource,
        "read",
        lambda self, index, rule: (
            reads.append(index),
            read(self, index, rule),
        )[1],
    )
    make = functools.partial(make_folder, tmp_path, batch_size=10)
    found = parts(lambda _: make(), 2, 1)
    for worker, (part, _) in enumerate(found):
        reads.clear()
        list(part)
        first = 5 * worker
        assert sorted(reads) == [
            *range(first, first + 5),
            *range(first + 10, first + 15),
        ]


def test_shards_by_hand(tmp_path):
    def make(worker):
        return make_arrays(tmp_path, batch_size=2, shard=(worker, 2))

    found = parts(make, 2, 1)
    got = [sum((numbers(b) for b in part), []) for part, _ in found]
    assert got == [list(range(0, COUNT, 2)), list(range(1, COUNT, 2))]
    same = functools.partial(make_arrays, tmp_path, shard=(0, 2))
    with pytest.raises(ValueError, match=r"Received: shards \[\(0, 2\), \(0,"):
        parts(lambda _: same(), 2, 1)


def test_different_data(tmp_path):
    with pytest.raises(ValueError, match="workers train on different data"):
        parts(lambda worker: make_arrays(tmp_path, seed=worker), 2, 1)
