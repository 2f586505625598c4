"""Finding image files and reading them in batches of one size."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

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


def find_images(source: Path, besides: Path | None = None) -> list[Found]:
    """Lists the image files of a folder and the folders in it, or one file.

    Args:
        source: a folder, or an image file (whatever its suffix).
        besides: a folder to leave out, where the command writes to.

    Returns:
        The files, sorted by name.
    """
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
            image = self._read(file.path)
            if image is not None:
                yield image.shape, (number, image)

    def _read(self, path: Path) -> np.ndarray | None:
        try:
            return self._decode(path)
        except (ValueError, OSError) as error:
            message = one_line(error)
            if str(path) not in message:
                message = f"{path}: {message}"
            if not self.skip_errors:
                raise CommandError(message) from error
            self.failed.append(message)
            return None

    def _decode(self, path: Path) -> np.ndarray:
        from keras_vq.data import decode_image
        from keras_vq.data.resize import (
            covering_size,
            crop_centre,
            resize_image,
        )

        image = decode_image(path.read_bytes(), self.channels, name=str(path))
        if self.size is not None:
            covering = covering_size(image.shape[:2], self.size, None)
            image = crop_centre(resize_image(image, covering), self.size)
        return image
