"""Data sets of tensorflow-datasets that are prepared already."""

import os

from keras_vq.data.errors import ImageError
from keras_vq.data.examples import Keys
from keras_vq.data.sources import EncodedSource
from keras_vq.data.tfrecord import TFRecordSource


def tfds_source(
    name, split, data_dir, keys: Keys, download: bool, probes: int = 1
):
    """Returns the source of a tensorflow-datasets data set.

    Args:
        name: Such as `"cifar10"` or `"imagenet2012:5.1.0"`.
        split: Such as `"train"` or `"train[:10%]"`.
        data_dir: Where the data sets are; None for the default folder.
        keys: The names of the features.
        download: Whether to get and prepare a data set that is missing.
        probes: How many records may be bad before the keys must be wrong.

    Raises:
        ImportError: If tensorflow-datasets is not installed.
        FileNotFoundError: If the data set is not prepared.
        ValueError: Unknown data set, split or feature.
    """
    tfds = _import()
    if data_dir is not None:
        data_dir = os.path.expanduser(os.fspath(data_dir))
    builder = _builder(tfds, name, data_dir)
    if download:
        builder.download_and_prepare()
    if not builder.is_prepared():
        raise FileNotFoundError(
            f"The data set {name!r} is not prepared. Received: data_dir="
            f"{data_dir!r}; looked in {builder.data_path}. Get it once with "
            f'`python -c "import tensorflow_datasets as tfds; '
            f"tfds.builder('{name}', data_dir={data_dir!r})"
            '.download_and_prepare()"`, copy that folder from another '
            "machine, or pass `download=True`."
        )
    _check_features(tfds, builder, name, keys)
    try:
        info = builder.info.splits[split]
    except (KeyError, ValueError):
        splits = ", ".join(builder.info.splits)
        raise ValueError(
            f"{name!r} has no split {split!r}. Received: the splits {splits}."
        ) from None
    labels = keys.label in builder.info.features
    if builder.info.file_format.value == "tfrecord":
        source = _record_source(info, keys, labels, probes)
    else:
        source = _random_access_source(tfds, builder, split, keys, labels)
    if labels:
        names = getattr(builder.info.features[keys.label], "names", None)
        source.class_names = names
    return source


def _import():
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            "`from_tfds` needs tensorflow-datasets: "
            "`pip install keras_vq[datasets]`. What it has prepared is read "
            "without TensorFlow. Images in folders, ArrayRecord files and "
            "arrays need neither: `from_folder`, `from_array_record`, "
            f"`from_arrays`. Received: {error}"
        ) from None
    return tfds


def _builder(tfds, name, data_dir):
    try:
        # Without this, tfds asks a bucket about every data set, and waits.
        tfds.core.utils.gcs_utils._is_gcs_disabled = True
        return tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except tfds.core.registered.DatasetNotFoundError:
        raise ValueError(
            f"tensorflow-datasets knows no data set {name!r}, and none is "
            f"prepared. Received: data_dir={data_dir!r}. "
            "`tfds.list_builders()` lists the known ones."
        ) from None


def _check_features(tfds, builder, name, keys):
    features = dict(builder.info.features.items())
    if not isinstance(features.get(keys.image), tfds.features.Image):
        images = [
            key
            for key, feature in features.items()
            if isinstance(feature, tfds.features.Image)
        ]
        raise ValueError(
            f"{name!r} has no image feature {keys.image!r}. Received: the "
            f"image features {images}. Choose with `image_key`."
        )


def _record_source(info, keys, labels, probes):
    parts = info.file_instructions
    return TFRecordSource(
        [os.fspath(part.filename) for part in parts],
        keys,
        labels,
        [(part.skip, part.take if part.take > 0 else None) for part in parts],
        probes,
    )


def _random_access_source(tfds, builder, split, keys, labels):
    decoders = {keys.image: tfds.decode.SkipDecoding()}
    data = builder.as_data_source(split, decoders=decoders)
    return _RandomAccessSource(data, keys, labels, f"{builder.name}[{split}]")


class _RandomAccessSource(EncodedSource):
    """A tfds data source (array_record), with the pictures left encoded."""

    def __init__(self, data, keys, labels, name):
        self.has_labels = labels
        self._data, self._keys, self._name = data, keys, name

    def __len__(self):
        return len(self._data)

    def read_bytes(self, index):
        name = self.name_of(index)
        try:
            example = self._data[index]
        except (IndexError, KeyError, RuntimeError, ValueError) as error:
            raise ImageError(
                f"{name} cannot be read ({type(error).__name__}: {error}); "
                "the file is damaged. Prepare the data set anew."
            ) from None
        label = int(example[self._keys.label]) if self.has_labels else -1
        return example[self._keys.image], name, label

    def name_of(self, index):
        return f"{self._name}[{index}]"
