"""The functions that users call, one for each kind of source.

All of them take the options of `keras_vq.data.Options` by name, and return a
dataset of float32 images in [-1, 1] with the shape `(batch, height, width,
channels)`, or of `(images, labels)` with int32 labels: a `tf.data.Dataset`
where TensorFlow is Keras' backend, otherwise a `grain.IterDataset` of NumPy
arrays. Both have the same batches.
"""

from typing import Any

from keras_vq.data.options import as_path
from keras_vq.data.pipeline import make_dataset


def from_tfrecord(
    files: Any,
    image_key: str = "image",
    label_key: str = "label",
    shape_key: str | None = None,
    **options: Any,
):
    """Reads TFRecord files of `tf.train.Example` with encoded pictures.

    The files are indexed once (twelve bytes a record are read); after that
    any record is read when its turn comes, so `shuffle` is a full permutation
    over all files. They must be local and uncompressed.

    Args:
        files: A path, a glob pattern such as `"data/train-*.tfrecord"`, or a
            list of either.
        image_key: The feature with the encoded picture.
        label_key: The feature with the label, an integer.
        shape_key: Where the picture is not encoded but stored byte by byte,
            channels first, the feature with channels, height and width. The
            TFRecords of the FFHQ data set are read with
            `image_key="data", shape_key="shape"`.
        **options: See `keras_vq.data.Options`.

    Returns:
        A dataset.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a file is no TFRecord, is truncated or damaged, or has
            other features (the message lists them).

    Example:
    ```python
    dataset = keras_vq.data.from_tfrecord(
        "cifar10/train.tfrecord", batch_size=128, shuffle=True, flip=True
    )
    ```
    """
    from keras_vq.data.examples import Keys
    from keras_vq.data.tfrecord import TFRecordSource

    labels = bool(options.get("labels", False))
    keys = Keys(image_key, label_key, shape_key)
    probes = _probes(options)
    source = TFRecordSource(files, keys, labels, probes=probes)
    return make_dataset(source, options)


def from_array_record(
    files: Any,
    image_key: str = "image",
    label_key: str = "label",
    **options: Any,
):
    """Reads ArrayRecord files of `tf.train.Example` with encoded pictures.

    That is what tensorflow-datasets writes with `file_format="array_record"`.

    Args:
        files: A path, a glob pattern such as `"data/train.array_record*"`, or
            a list of either.
        image_key: The feature with the encoded picture.
        label_key: The feature with the label, an integer.
        **options: See `keras_vq.data.Options`.

    Returns:
        A dataset.

    Raises:
        FileNotFoundError: If there is no such file.
        ImportError: If the package `array_record` is not installed.
        ValueError: If a file is no ArrayRecord or is damaged, or has other
            features (the message lists them).

    Example:
    ```python
    dataset = keras_vq.data.from_array_record(
        "cifar10/train.array_record*", batch_size=128, shuffle=True
    )
    ```
    """
    from keras_vq.data.array_record import ArrayRecordSource
    from keras_vq.data.examples import Keys

    labels = bool(options.get("labels", False))
    keys, probes = Keys(image_key, label_key), _probes(options)
    source = ArrayRecordSource(files, keys, labels, probes)
    return make_dataset(source, options)


def _probes(options):
    """Returns how many records may be bad before the keys must be wrong."""
    return 16 if options.get("on_error") == "skip" else 1


def from_folder(directory: Any, recursive: bool = True, **options: Any):
    """Reads the picture files of a folder, in the order of their paths.

    Taken are JPEG, PNG, GIF, BMP and WebP files by their ending; hidden files
    are not. With `labels=True` each subfolder is a class, numbered in the
    alphabet's order (`keras_vq.data.pipeline_of(dataset).class_names`).

    Args:
        directory: The folder.
        recursive: Whether to look into subfolders.
        **options: See `keras_vq.data.Options`.

    Returns:
        A dataset.

    Raises:
        NotADirectoryError: If there is no such folder.
        ValueError: If no picture is in it.

    Example:
    ```python
    dataset = keras_vq.data.from_folder(
        "photos", image_size=256, resize=288, crop="random", batch_size=16
    )
    ```
    """
    from keras_vq.data.sources import FolderSource

    path = as_path(directory, "`directory`")
    labels = bool(options.get("labels", False))
    return make_dataset(FolderSource(path, recursive, labels), options)


def from_arrays(images: Any, labels: Any = None, **options: Any):
    """Makes a dataset of uint8 images in memory, or in a `numpy.memmap`.

    Args:
        images: uint8 `(n, height, width, channels)` or `(n, height, width)`.
        labels: Integers `(n,)` or `(n, 1)`; if given, the dataset is of
            `(images, labels)`.
        **options: See `keras_vq.data.Options`.

    Returns:
        A dataset.

    Raises:
        ValueError: For another dtype or shape.

    Example:
    ```python
    (x, _), _ = keras.datasets.cifar10.load_data()
    dataset = keras_vq.data.from_arrays(x, batch_size=128, shuffle=True)
    ```
    """
    from keras_vq.data.sources import ArraySource

    source = ArraySource(images, labels)
    return make_dataset(source, {**options, "labels": labels is not None})


def from_cifar10(directory: Any, split: str = "train", **options: Any):
    """Reads the original files of CIFAR-10, binary or Python version.

    The binary version is taken where both are. A Python batch is a pickle; it
    is read without running anything that it asks for.

    Args:
        directory: The folder with the extracted batches, or its parent.
        split: `"train"` (50,000 images) or `"test"` (10,000).
        **options: See `keras_vq.data.Options`.

    Returns:
        A dataset.

    Raises:
        FileNotFoundError: If a batch is missing.
        ValueError: If a file is truncated or is something else.

    Example:
    ```python
    dataset = keras_vq.data.from_cifar10("~/data", "test", labels=True)
    ```
    """
    from keras_vq.data.cifar import CIFAR10Source

    path = as_path(directory, "`directory`")
    return make_dataset(CIFAR10Source(path, split), options)


def from_idx(images: Any, labels: Any = None, **options: Any):
    """Reads IDX files, the format of MNIST and Fashion-MNIST.

    Args:
        images: The images' file, compressed with gzip or not.
        labels: The labels' file; if given, the dataset is of `(images,
            labels)`.
        **options: See `keras_vq.data.Options`. Images have one channel
            unless `channels=3` repeats it.

    Returns:
        A dataset.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: Wrong magic number, truncated, or labels for another
            number of images.

    Example:
    ```python
    dataset = keras_vq.data.from_idx(
        "train-images-idx3-ubyte.gz", batch_size=128, shuffle=True
    )
    ```
    """
    from keras_vq.data.idx import IDXSource

    if labels is not None:
        labels = as_path(labels, "`labels`")
    source = IDXSource(as_path(images, "`images`"), labels)
    return make_dataset(source, {**options, "labels": labels is not None})


def from_tfds(
    name: str,
    split: str = "train",
    data_dir: Any = None,
    download: bool = False,
    image_key: str = "image",
    label_key: str = "label",
    **options: Any,
):
    """Reads a data set of tensorflow-datasets (the extra `datasets`).

    A data set that is not prepared is an error at once; nothing is downloaded
    unless `download=True`.

    Args:
        name: Such as `"cifar10"`, `"imagenet2012:5.1.0"`.
        split: Such as `"train"`, `"train[:10%]"`.
        data_dir: Where data sets are kept; None for tfds' default.
        download: Whether to get a data set that is missing.
        image_key: The feature with the image.
        label_key: The feature with the label.
        **options: See `keras_vq.data.Options`.

    Returns:
        A dataset.

    Raises:
        ImportError: If tensorflow-datasets is not installed.
        FileNotFoundError: If the data set is not prepared.
        ValueError: Unknown data set, split or feature.

    Example:
    ```python
    dataset = keras_vq.data.from_tfds("cifar10", "train", batch_size=128)
    ```
    """
    from keras_vq.data.examples import Keys
    from keras_vq.data.tfds_source import tfds_source

    keys, probes = Keys(image_key, label_key), _probes(options)
    source = tfds_source(name, split, data_dir, keys, download, probes)
    return make_dataset(source, options)
