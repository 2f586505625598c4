"""Finding image files and reading them in batches of one size."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from keras_vq.cli.batching import batches_by_size
from keras_vq.cli.errors import CommandError, one_line


@dataclasses.dataclass
class Found:
    """An image file to read.

    Attributes:
        path: where it is.
        name: its path below the folder that was given, with "/"; the file
            name for a single file. The same on every system.
    """

    path: Path
    name: str

    def read(self) -> bytes:
        """The encoded picture."""
        return self.path.read_bytes()


@dataclasses.dataclass
class FoundRecord:
    """An image in a TFRecord file of `tf.train.Example`.

    Attributes:
        path: the file.
        name: name of the file without its suffix, and number of the record.
        source: the `keras_vq.data.tfrecord.TFRecordSource` of the file.
        number: number of the record in it.
    """

    path: Path
    name: str
    source: Any
    number: int

    def read(self) -> bytes:
        """The encoded picture."""
        return self.source.read_bytes(self.number)[0]

    @property
    def label(self) -> int | None:
        """The label that the record has, or None."""
        feature = self.source.example(self.number).get("label")
        if feature is None or feature.kind != "int64_list":
            return None
        return feature.values[0] if len(feature.values) == 1 else None


def find_images(source: Path, besides: Path | None = None) -> list[Found]:
    """Lists the image files of a folder and the folders in it, or one file.

    Args:
        source: a folder, an image file (whatever its suffix), or a TFRecord
            file (.tfrecord or .tfrecords) with encoded pictures as `image`.
        besides: a folder to leave out, where the command writes to.

    Returns:
        The files, sorted by name.
    """
    if source.is_file() and source.suffix in (".tfrecord", ".tfrecords"):
        return _find_records(source)
    if not source.is_dir():
        return [Found(source, source.name)]
    from keras_vq.data.sources import EXTENSIONS

    besides = besides.resolve() if besides is not None else None
    found = [
        Found(path, path.relative_to(source).as_posix())
        for path in sorted(source.rglob("*"))
        if path.suffix.lower() in EXTENSIONS
        and not path.name.startswith(".")
        and path.is_file()
        and not (
            besides is not None
            and besides != source.resolve()
            and path.resolve().is_relative_to(besides)
        )
    ]
    if not found:
        raise CommandError(
            f"no images in {source}. Expected files that end in "
            f"{', '.join(EXTENSIONS)}"
        )
    return found


def _find_records(path: Path) -> list[FoundRecord]:
    from keras_vq.data.tfrecord import TFRecordSource

    source = TFRecordSource(str(path))
    return [
        FoundRecord(path, f"{path.stem}-{number:07}", source, number)
        for number in range(len(source))
    ]


class ImageReader:
    """Reads images and hands them out in batches of one size.

    Args:
        files: what `find_images` found.
        channels: channels of the images, 1 or 3 (those of the model).
        size: (height, width), or None for each image's own size.
        batch_size: images in a batch, at most.
        skip_errors: collect unreadable files in `failed` and go on.

    Attributes:
        failed: the message of each skipped image.
    """

    def __init__(
        self,
        files: list[Found],
        channels: int,
        size: tuple[int, int] | None = None,
        batch_size: int = 16,
        skip_errors: bool = False,
    ):
        self.files = files
        self.channels = channels
        self.size = size
        self.batch_size = batch_size
        self.skip_errors = skip_errors
        self.failed: list[str] = []

    def batches(self) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yields (numbers of the files, uint8 images), each file once."""
        for group in batches_by_size(self._images(), self.batch_size):
            numbers, images = zip(*group, strict=True)
            yield list(numbers), np.stack(images)

    def _images(self) -> Iterator[tuple]:
        for number, file in enumerate(self.files):
            image = self._read(file)
            if image is not None:
                yield image.shape, (number, image)

    def _read(self, file: Found) -> np.ndarray | None:
        try:
            return self._decode(file)
        except (ValueError, OSError) as error:
            message = one_line(error)
            if str(file.path) not in message:
                message = f"{file.path}: {message}"
            if not self.skip_errors:
                raise CommandError(message) from error
            self.failed.append(message)
            return None

    def _decode(self, file: Found) -> np.ndarray:
        from keras_vq.data import decode_image
        from keras_vq.data.resize import (
            covering_size,
            crop_centre,
            resize_image,
        )

        name = str(file.path)
        if file.path.name != file.name.rpartition("/")[2]:
            name = f"{file.name} in {name}"
        image = decode_image(file.read(), self.channels, name=name)
        if self.size is not None:
            covering = covering_size(image.shape[:2], self.size, None)
            image = crop_centre(resize_image(image, covering), self.size)
        return image
