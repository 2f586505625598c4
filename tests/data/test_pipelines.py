"""Order, repetition, seeds and shards: which image is where, and when."""

import dataclasses

import keras
import numpy as np
import pytest
from engines import TENSORFLOW, on_tensorflow
from pictures import encode, noise
from PIL import Image

from keras_vq.data import (
    Options,
    from_arrays,
    from_folder,
    from_tfrecord,
    pipeline_of,
)


def numbered(count, size=4):
    """Images that hold their own number in every pixel."""
    images = np.arange(count, dtype=np.uint8)[:, None, None, None]
    return np.broadcast_to(images, (count, size, size, 1)).copy()


def numbers(batch):
    return np.round((np.asarray(batch)[:, 0, 0, 0] + 1) * 127.5).astype(int)


def order(dataset):
    return [numbers(batch).tolist() for batch in dataset]


def flat(dataset):
    return sum(order(dataset), [])


def test_finite_and_in_order_by_default():
    dataset = from_arrays(numbered(10), batch_size=4)
    assert len(dataset) == 3
    for _ in range(2):
        assert order(dataset) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_drop_remainder():
    dataset = from_arrays(numbered(10), batch_size=4, drop_remainder=True)
    assert len(dataset) == 2
    assert order(dataset) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert dataset.element_spec.shape == (4, 4, 4, 1)
    with pytest.raises(ValueError, match="no batch is left"):
        from_arrays(numbered(3), batch_size=4, drop_remainder=True)


def test_shuffled_epochs_are_permutations_that_differ():
    dataset = from_arrays(numbered(50), batch_size=8, shuffle=True)
    epochs = [flat(dataset) for _ in range(3)]
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_an_iterator_that_nobody_uses_takes_no_epoch():
    """Keras makes one at the end of every epoch."""
    used = from_arrays(numbered(50), batch_size=8, shuffle=True)
    iterators = [iter(used) for _ in range(3)]
    batches = [numbers(batch).tolist() for batch in iterators[1]]
    fresh = from_arrays(numbered(50), batch_size=8, shuffle=True)
    assert batches == order(fresh)
    assert order(used) == order(fresh)


def test_an_epoch_can_be_chosen():
    dataset = from_arrays(numbered(50), batch_size=8, shuffle=True)
    epochs = [flat(dataset) for _ in range(3)]
    pipeline_of(dataset).begin_at_epoch(1)
    assert [flat(dataset) for _ in range(2)] == epochs[1:]


def test_the_same_seed_gives_the_same_epochs_and_another_seed_others():
    def epochs(seed):
        dataset = from_arrays(numbered(50), shuffle=True, seed=seed)
        return [flat(dataset) for _ in range(2)]

    assert epochs(3) == epochs(3)
    assert epochs(3) != epochs(4)


def test_the_global_seed_changes_nothing():
    results = []
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        results.append(flat(from_arrays(numbered(50), shuffle=True)))
    assert results[0] == results[1]


def test_endless_batches_run_across_epochs():
    dataset = from_arrays(numbered(10), batch_size=4, shuffle=True, repeat=True)
    with pytest.raises(TypeError, match="infinite"):
        len(dataset)
    assert dataset  # Whether it is there is no question of its length.
    batches = order(dataset.take(15))
    assert all(len(batch) == 4 for batch in batches)
    stream = sum(batches, [])
    epochs = [stream[i : i + 10] for i in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


def test_the_first_endless_epoch_is_the_first_finite_one():
    options = dict(batch_size=5, shuffle=True, seed=2)
    finite = order(from_arrays(numbered(20), **options))
    endless = from_arrays(numbered(20), repeat=True, **options)
    assert order(endless.take(4)) == finite


@pytest.fixture(scope="module")
def random_source(tmp_path_factory):
    """Pictures of several sizes in a folder, larger than the crops."""
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(11):
        image = noise(20 + i, 31 - i, seed=i)
        (folder / f"{i:02}.png").write_bytes(encode(image, "PNG"))
    return folder


RANDOM = dict(
    image_size=(12, 14),
    resize=18,
    crop="random",
    flip=True,
    shuffle=True,
    batch_size=4,
    seed=5,
)


def bits(dataset, count):
    return [np.asarray(batch).tobytes() for batch in dataset.take(count)]


@pytest.mark.parametrize("cache", [False, True])
def test_every_step_is_the_same_wherever_the_run_starts(random_source, cache):
    def dataset(start):
        return from_folder(
            random_source,
            repeat=True,
            start_step=start,
            cache=cache,
            **RANDOM,
        )

    whole = bits(dataset(0), 12)
    assert len(set(whole)) == 12
    assert bits(dataset(0), 12) == whole
    for start in (1, 5, 9):
        assert bits(dataset(start), 12 - start) == whole[start:]
    pipeline = pipeline_of(dataset(0))
    assert bits(pipeline.start_at(7), 5) == whole[7:]
    far = pipeline.start_at(10**12)
    assert bits(far, 2) == bits(dataset(10**12), 2)


@on_tensorflow
def test_determinism_settings_and_threads_change_nothing(random_source):
    whole = bits(from_folder(random_source, repeat=True, **RANDOM), 20)
    import tensorflow as tf

    options = tf.data.Options()
    options.threading.private_threadpool_size = 16
    dataset = from_folder(random_source, repeat=True, **RANDOM)
    assert bits(dataset.with_options(options), 20) == whole


def test_finite_epochs_have_crops_and_flips_of_their_own(random_source):
    dataset = from_folder(random_source, **RANDOM)
    first, second = ([np.asarray(b) for b in dataset] for _ in range(2))
    pipeline = pipeline_of(dataset)
    assert pipeline.steps_per_epoch == 3 == len(first)
    assert all((a != b).any() for a, b in zip(first, second, strict=True))
    again = from_folder(random_source, **RANDOM)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)


def test_flips_are_mirror_images_half_of_the_time():
    image = noise(6, 6)
    images = np.repeat(image[None], 1000, 0)
    (batch,) = from_arrays(images, flip=True, batch_size=1000)
    batch = np.round((np.asarray(batch) + 1) * 127.5)
    mirrored = (batch == image[:, ::-1]).all((1, 2, 3))
    assert (mirrored | (batch == image).all((1, 2, 3))).all()
    # Five standard deviations of a fair coin.
    assert abs(mirrored.sum() - 500) < 5 * np.sqrt(250)


def test_flip_and_labels_belong_to_the_same_image():
    labels = np.arange(40) + 100
    dataset = from_arrays(
        numbered(40), labels, shuffle=True, flip=True, batch_size=7
    )
    seen = []
    for batch, found in dataset:
        np.testing.assert_array_equal(numbers(batch) + 100, found)
        seen += np.asarray(found).tolist()
    assert sorted(seen) == labels.tolist()


@pytest.mark.parametrize("count", [2, 3])
def test_shards_share_the_epoch_without_overlap(count):
    shards = [
        from_arrays(numbered(10), batch_size=2, shuffle=True, shard=(i, count))
        for i in range(count)
    ]
    parts = [flat(shard) for shard in shards]
    assert sorted(sum(parts, [])) == list(range(10))
    whole = flat(from_arrays(numbered(10), shuffle=True))
    for i, part in enumerate(parts):
        assert part == whole[i::count]


def test_endless_shards_step_together():
    options = dict(shuffle=True, repeat=True, seed=1)
    whole = from_arrays(numbered(10), batch_size=6, **options)
    shards = [
        from_arrays(numbered(10), batch_size=2, shard=(i, 3), **options)
        for i in range(3)
    ]
    steps = [pipeline_of(shard).steps_per_epoch for shard in shards]
    assert steps == [1, 1, 1]
    for batch, *parts in zip(
        order(whole.take(8)), *[order(s.take(8)) for s in shards], strict=True
    ):
        for i, part in enumerate(parts):
            assert part == batch[i::3]


def test_cached_images_are_decoded_once(random_source, monkeypatch):
    from keras_vq.data import sources

    decoded, decode = [], sources.decode_image

    def counted(data, *args):
        decoded.append(data)
        return decode(data, *args)

    monkeypatch.setattr(sources, "decode_image", counted)
    dataset = from_folder(random_source, image_size=12, batch_size=11)
    plain = [np.asarray(next(iter(dataset))) for _ in range(2)]
    assert len(decoded) == 22
    decoded.clear()
    dataset = from_folder(
        random_source, image_size=12, batch_size=11, cache=True
    )
    cached = [np.asarray(next(iter(dataset))) for _ in range(3)]
    assert len(decoded) == 11
    for batch in cached:
        np.testing.assert_array_equal(batch, plain[0])


@on_tensorflow
def test_two_replicas_see_every_image_once(request):
    two_replicas = request.getfixturevalue("two_replicas")
    dataset = from_arrays(numbered(22), batch_size=8, shuffle=True)
    expected = order(dataset)
    dataset = from_arrays(numbered(22), batch_size=8, shuffle=True)
    distributed = two_replicas.experimental_distribute_dataset(dataset)
    for batch, whole in zip(distributed, expected, strict=True):
        parts = two_replicas.experimental_local_results(batch)
        assert [len(p) for p in parts] == [-(-len(whole) // 2), len(whole) // 2]
        assert sum((numbers(p).tolist() for p in parts), []) == whole


def test_keras_fits_on_pairs_and_evaluates():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), keras.layers.Flatten(), keras.layers.Dense(1)]
    )
    model.compile("sgd", "mse")
    dataset = from_arrays(
        numbered(20), np.arange(20) % 2, batch_size=8, repeat=True
    )
    history = model.fit(
        dataset, epochs=2, steps_per_epoch=3, shuffle=False, verbose=0
    )
    assert len(history.history["loss"]) == 2
    finite = from_arrays(numbered(20), np.arange(20) % 2, batch_size=8)
    assert np.isfinite(model.evaluate(finite, verbose=0))
    assert model.predict(finite, verbose=0).shape == (20, 1)


def test_pipeline_of_other_datasets():
    dataset = from_arrays(numbered(4))
    assert pipeline_of(dataset).num_examples == 4
    assert pipeline_of(dataset.take(1)) is None
    if TENSORFLOW:
        import tensorflow as tf

        assert pipeline_of(tf.data.Dataset.range(3)) is None
    assert pipeline_of([1, 2, 3]) is None


@pytest.mark.parametrize(
    "options, error, message",
    [
        (dict(batchsize=3), TypeError, "Did you mean `batch_size`"),
        (dict(wild=3), TypeError, "The options are: batch_size"),
        (dict(batch_size=0), ValueError, "integer >= 1"),
        (dict(batch_size=2.5), ValueError, "integer >= 1"),
        (dict(image_size=-1), ValueError, "image_size"),
        (dict(image_size=(4, 4, 3)), ValueError, "image_size"),
        (dict(crop="top"), ValueError, "'center', 'random'.*'top'"),
        (dict(crop="random"), ValueError, "needs `image_size`"),
        (dict(resize=32), ValueError, "needs `image_size`"),
        (dict(resize=8, image_size=16), ValueError, "larger side"),
        (dict(resize=8, image_size=4, crop=None), ValueError, "needs `crop`"),
        (dict(interpolation="cubic"), ValueError, "'bicubic'"),
        (dict(channels=2), ValueError, "None, 1, 3"),
        (dict(start_step=3), ValueError, "repeat=True"),
        (dict(start_step=-3, repeat=True), ValueError, "integer >= 0"),
        (dict(shard=(2, 2)), ValueError, "index < count"),
        (dict(shard=3), ValueError, "index, count"),
        (dict(shard=(5, 6)), ValueError, "No example is left"),
        (dict(subset=(0.5, 0.5)), ValueError, "start < stop"),
        (dict(subset=0.5), ValueError, "start < stop"),
        (dict(subset=(0.0, 0.01)), ValueError, "No example is between"),
        (dict(seed="x"), ValueError, "`seed` must be an integer"),
        (dict(augment="blur"), ValueError, "random_resized_crop"),
        (dict(augment="random_resized_crop"), ValueError, "image_size"),
    ],
)
def test_impossible_options(options, error, message):
    with pytest.raises(error, match=message) as caught:
        from_arrays(numbered(4), **options)
    assert "Received" in str(caught.value)


def test_labels_need_a_source_that_has_them():
    with pytest.raises(ValueError, match="3 integers"):
        from_arrays(numbered(3), [1, 2])
    with pytest.raises(ValueError, match="3 integers"):
        from_arrays(numbered(3), [0.5, 1.5, 2.5])
    ((_, labels),) = from_arrays(numbered(3), [[1], [2], [3]])
    np.testing.assert_array_equal(labels, [1, 2, 3])


@pytest.mark.parametrize(
    "images, message",
    [
        (np.zeros((2, 4, 4, 3)), "uint8.*float64.*255"),
        (np.zeros((4, 4), np.uint8), "shape"),
        (np.zeros((0, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((2, 3, 32, 32), np.uint8), "channels first"),
    ],
)
def test_arrays_of_another_kind(images, message):
    with pytest.raises(ValueError, match=message):
        from_arrays(images)


def test_options_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().batch_size = 3


def test_memory_maps_are_not_copied(tmp_path):
    path = tmp_path / "images.npy"
    np.save(path, numbered(30))
    images = np.load(path, mmap_mode="r")
    dataset = from_arrays(images, shuffle=True, flip=True)
    assert pipeline_of(dataset).source.images is images
    assert sorted(flat(dataset)) == list(range(30))


def test_lossless_cifar_images(data_dir):
    data = np.load(data_dir / "cifar10" / "lossless_eval.npz")
    dataset = from_arrays(data["image"], data["label"], batch_size=2000)
    ((images, labels),) = dataset
    np.testing.assert_array_equal(labels, data["label"])
    exact = data["image"].astype(np.float64) / 127.5 - 1
    np.testing.assert_allclose(images, exact, rtol=0, atol=2e-7)


def test_real_cifar_is_the_same_from_any_step(data_dir):
    options = dict(
        batch_size=64,
        image_size=28,
        resize=32,
        crop="random",
        flip=True,
        shuffle=True,
        repeat=True,
        labels=True,
    )
    path = data_dir / "cifar10" / "test.tfrecord"
    whole = list(from_tfrecord(path, **options).take(6))
    late = list(from_tfrecord(path, start_step=4, **options).take(2))
    for (x, y), (images, labels) in zip(whole[4:], late, strict=True):
        np.testing.assert_array_equal(x, images)
        np.testing.assert_array_equal(y, labels)


def test_a_picture_file_and_an_array_give_the_same_batch(tmp_path):
    image = noise(40, 50)
    Image.fromarray(image).save(tmp_path / "a.png")
    options = dict(image_size=16, crop="random", resize=20, flip=True, seed=9)
    (one,) = from_folder(tmp_path, **options)
    (other,) = from_arrays(image[None], **options)
    np.testing.assert_array_equal(one, other)


def test_subsets_share_the_source_without_overlap(tmp_path):
    images = numbered(17)
    parts = [(0.0, 0.5), (0.5, 6 / 7), (6 / 7, 1.0)]
    found = [flat(from_arrays(images, subset=part)) for part in parts]
    assert sum(found, []) == list(range(17)) and all(found)
    for part, want in zip(parts, found, strict=True):
        mixed = from_arrays(images, subset=part, shuffle=True, batch_size=3)
        assert sorted(flat(mixed)) == want
        shards = [
            from_arrays(images, subset=part, shard=(i, 2)) for i in range(2)
        ]
        assert sorted(sum(map(flat, shards), [])) == want
    labels = np.arange(17)
    dataset = from_arrays(images, labels, subset=(0.5, 1.0))
    for batch, batch_labels in dataset:
        assert numbers(batch).tolist() == np.asarray(batch_labels).tolist()
    assert dataset.element_spec[0].shape[1:] == (4, 4, 1)
    for i, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(tmp_path / f"{i:02}.png")
    folder = from_folder(tmp_path, subset=parts[1], channels=1)
    assert flat(folder) == found[1]
