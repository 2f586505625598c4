"""Images a second from each kind of data source, and from plain tf.data.

    python benchmarks/data_throughput.py --data-dir DIR [--repeats 3]

Protocol: every pipeline gives shuffled, mirrored float32 batches in [-1, 1].
One pass over the data (at most --images) is timed from the first batch that
is asked for to the last, nothing else running; a pass before it, not timed,
warms the file cache (and fills `cache=True`). Rounds are interleaved over the
pipelines, and the median of the rounds is given, so that a slow moment of the
machine hits all alike. The processor time of all threads together is given as
well; it changes less on a machine that does other things. "plain tf.data" is
the pipeline that one would write by hand: TFRecordDataset, a shuffle buffer
of 10,000, parse_single_example, decode_jpeg, random flip, batch.
"""

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path


def plain_tf_data(path, batch_size):
    """Returns the usual hand-written pipeline over a TFRecord."""
    import tensorflow as tf

    features = {"image": tf.io.FixedLenFeature([], tf.string)}

    def decode(record):
        image = tf.io.parse_single_example(record, features)["image"]
        image = tf.io.decode_jpeg(image, 3, dct_method="INTEGER_ACCURATE")
        image = tf.image.random_flip_left_right(image)
        return tf.cast(image, tf.float32) / 127.5 - 1.0

    return (
        tf.data.TFRecordDataset(str(path))
        .shuffle(10_000)
        .map(decode, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(batch_size)
        .prefetch(tf.data.AUTOTUNE)
    )


def pipelines(data_dir, batch_size):
    """Returns the datasets to measure, for the data that is there."""
    import numpy as np

    from keras_vq import data

    options = dict(batch_size=batch_size, shuffle=True, flip=True)
    made = {}
    for name in ("cifar10", "tiny_imagenet"):
        path = data_dir / name / "train.tfrecord"
        if path.is_file():
            made[f"{name} tfrecord"] = data.from_tfrecord(path, **options)
            made[f"{name} tfrecord, cache"] = data.from_tfrecord(
                path, cache=True, **options
            )
            made[f"{name} plain tf.data"] = plain_tf_data(path, batch_size)
    folder = data_dir / "photos"
    if folder.is_dir():
        geometry = dict(image_size=128, resize=144, crop="random")
        made["photos folder, 144 to 128"] = data.from_folder(
            folder, **geometry, **options
        )
        made["photos folder, 144 to 128, cache"] = data.from_folder(
            folder, cache=True, **geometry, **options
        )
    images = np.random.default_rng(0).integers(
        0, 256, (20_000, 32, 32, 3), np.uint8
    )
    made["arrays 32x32"] = data.from_arrays(images, **options)
    return made


def measure(dataset, images):
    """Returns images a second, and CPU microseconds an image, of a pass."""
    seen, start, used = 0, time.perf_counter(), time.process_time()
    for batch in dataset:
        seen += len(batch)
        if seen >= images:
            break
    seconds = time.perf_counter() - start
    return seen / seconds, 1e6 * (time.process_time() - used) / seen


def main():
    """Measures, and prints a table and one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()

    made = pipelines(arguments.data_dir, arguments.batch_size)
    rates = {name: [] for name in made}
    for number in range(arguments.repeats + 1):
        for name, dataset in made.items():
            rate = measure(dataset, arguments.images)
            if number:
                rates[name].append(rate)
    import tensorflow as tf

    median = {
        name: [statistics.median(x) for x in zip(*rounds, strict=True)]
        for name, rounds in rates.items()
    }
    result = {
        "images_per_second": {n: round(m[0]) for n, m in median.items()},
        "cpu_microseconds": {n: round(m[1], 1) for n, m in median.items()},
        "rounds": {n: [round(x) for x, _ in r] for n, r in rates.items()},
        "batch_size": arguments.batch_size,
        "cores": os.cpu_count(),
        "load_average": [round(x, 1) for x in os.getloadavg()],
        "tensorflow": tf.__version__,
        "python": platform.python_version(),
    }
    for name, (rate, used) in median.items():
        print(f"{name:32} {rate:9,.0f} images/s {used:8.1f} us CPU an image")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
