"""ArrayRecord files: like TFRecord files, but with an index in them."""

from keras_vq.data.engine import is_installed
from keras_vq.data.errors import ImageError
from keras_vq.data.examples import ExampleSource, Keys
from keras_vq.data.files import expand_files


class ArrayRecordSource(ExampleSource):
    """Encoded pictures in ArrayRecord files of `tf.train.Example`.

    Args:
        files: A path, a glob pattern, or a list of either.
        keys: Which features hold image and label.
        labels: Whether to read labels.
        probes: How many records are looked at until one has the features;
            if none has, the keys are taken to be wrong.
    """

    def __init__(self, files, keys: Keys, labels=False, probes=1):
        if not is_installed("array_record"):
            raise ImportError(
                "`from_array_record` needs the package array_record: `pip "
                "install array_record` (it comes with keras_vq[jax])."
            )
        self.files = expand_files(files, "ArrayRecord")
        self._readers = [_open(path) for path in self.files]
        self._places = [
            (number, index)
            for number, reader in enumerate(self._readers)
            for index in range(reader.num_records())
        ]
        if not self._places:
            raise ValueError(
                "The ArrayRecord files hold no records. Received: "
                + ", ".join(self.files)
            )
        super().__init__(keys, labels, probes)

    def __len__(self):
        return len(self._places)

    def read_record(self, index):
        number, place = self._places[index]
        name = self.name_of(index)
        try:
            (data,) = self._readers[number].read([place])
        except (IndexError, RuntimeError, ValueError) as error:
            raise ImageError(
                f"{name} cannot be read ({error}); the file is damaged. Copy "
                "it anew."
            ) from None
        return data, name

    def name_of(self, index):
        number, place = self._places[index]
        return f"Record {place} of {self.files[number]}"


def _open(path):
    from array_record.python.array_record_module import ArrayRecordReader

    # For single records in any order.
    reader = ArrayRecordReader(path, options="readahead_buffer_size:0")
    if not reader.ok():
        raise ImageError(
            f"{path} is not an ArrayRecord file, or it is truncated or "
            "damaged. Copy it anew."
        )
    return reader
