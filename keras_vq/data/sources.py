"""Where images come from: anything with a length and `read(index)`.

Every source can read any of its examples at any time. That one property
gives a perfect shuffle without a buffer, a start at any step, and shards
that never read each other's examples.
"""

import abc
import dataclasses
import errno
import os
import stat
from collections import Counter

import numpy as np

from keras_vq.data.decode import decode_image, to_channels
from keras_vq.data.errors import ImageError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp")
# What is wrong with one file. Anything else (an input/output error, too many
# open files) is wrong with the machine, and no reason to skip a picture.
_OF_THE_FILE = {
    errno.EACCES,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
}


@dataclasses.dataclass(frozen=True)
class Rule:
    """How `read` turns what is stored into an image.

    Args:
        channels: Channels of the result, or None for the stored ones (files:
            3).
        max_pixels: Larger picture files are refused.
    """

    channels: int | None
    max_pixels: int


class ImageSource(abc.ABC):
    """A fixed number of images that can be read in any order.

    `read` is called from several threads at once.
    """

    has_labels = False
    class_names: list[str] | None = None
    # Shape of every image as it is stored, where they all have the same.
    stored_shape: tuple | None = None

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of examples."""

    @abc.abstractmethod
    def read(self, index: int, rule: Rule) -> tuple[np.ndarray, int]:
        """Returns a uint8 image `(height, width, channels)` and its label.

        The label is -1 where the source has none. A bad picture raises
        `ImageError` with the name of the file in the message.
        """

    def name_of(self, index: int) -> str:
        """Returns what the example is called in messages, without reading."""
        return f"example {index}"


class EncodedSource(ImageSource):
    """A source whose examples are encoded pictures."""

    @abc.abstractmethod
    def read_bytes(self, index: int) -> tuple[bytes, str, int]:
        """Returns the encoded picture, its name and its label."""

    def read(self, index, rule):
        data, name, label = self.read_bytes(index)
        channels = 3 if rule.channels is None else rule.channels
        return decode_image(data, channels, rule.max_pixels, name), label


class ArraySource(ImageSource):
    """Images that are in memory (or memory-mapped) already.

    Args:
        images: uint8 `(n, height, width)` or `(n, height, width, channels)`.
        labels: Integers `(n,)`, or None.
        name: What the images are called in messages.
    """

    def __init__(self, images, labels=None, name="images"):
        self.images = _checked_images(images, name)
        self.stored_shape = self.images.shape[1:]
        self.labels = None
        if labels is not None:
            self.labels = _checked_labels(labels, len(self.images))
        self.has_labels = labels is not None
        self.name = name

    def __len__(self):
        return len(self.images)

    def read(self, index, rule):
        image = self.images[index]
        if rule.channels is not None:
            image = to_channels(image, rule.channels, self.name_of(index))
        return image, -1 if self.labels is None else int(self.labels[index])

    def name_of(self, index):
        return f"{self.name}[{index}]"


class PartOfSource(ImageSource):
    """The examples of a source between two fractions of it.

    Args:
        source: An `ImageSource`.
        start: Where the part begins, in [0, 1).
        stop: Where it ends, in (start, 1].
    """

    def __init__(self, source, start, stop):
        self.source = source
        self.has_labels = source.has_labels
        self.class_names = source.class_names
        self.stored_shape = source.stored_shape
        # Rounded alike, so that neighbouring parts have no example in common.
        first, end = (round(x * len(source)) for x in (start, stop))
        self._indices = range(first, end)
        if not self._indices:
            raise ValueError(
                f"No example is between {start} and {stop} of the source. "
                f"Received: {len(source)} examples in all."
            )

    def __len__(self):
        return len(self._indices)

    def read(self, index, rule):
        return self.source.read(self._indices[index], rule)

    def name_of(self, index):
        return self.source.name_of(self._indices[index])


class FolderSource(EncodedSource):
    """The picture files of a folder, sorted by their path.

    Args:
        directory: The folder.
        recursive: Whether to look into subfolders.
        labels: Whether the subfolders are classes.
    """

    def __init__(self, directory, recursive=True, labels=False):
        self.directory = os.fspath(directory)
        if not os.path.isdir(self.directory):
            what = (
                "is a file"
                if os.path.exists(self.directory)
                else ("does not exist")
            )
            raise NotADirectoryError(
                "Expected a folder of pictures. Received: "
                f"directory={self.directory!r}, which {what}."
            )
        files, others = _list_pictures(self.directory, recursive or labels)
        if labels:
            files = [path for path in files if "/" in path]
            names = [path.split("/", 1)[0] for path in files]
            self.class_names = sorted(set(names))
            numbers = {name: i for i, name in enumerate(self.class_names)}
            self._labels = [numbers[name] for name in names]
        if not files:
            raise ValueError(self._nothing_found(labels, others))
        self.has_labels = labels
        self.files = files

    def _nothing_found(self, labels, others):
        found = ", ".join(f"{n} {e}" for e, n in others.most_common(5))
        return (
            f"No pictures found in {self.directory!r}; expected files ending "
            f"in {', '.join(EXTENSIONS)}"
            + (" in one subfolder a class" if labels else "")
            + f". Received: {found or 'an empty folder'}."
        )

    def __len__(self):
        return len(self.files)

    def read_bytes(self, index):
        path = self.name_of(index)
        data = _content(path)
        return data, path, self._labels[index] if self.has_labels else -1

    def name_of(self, index):
        return os.path.join(self.directory, self.files[index])


def _content(path):
    try:
        # Opening a named pipe would wait for somebody to write into it.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ImageError(
                f"{path} is no file with a content; expected a picture. Take "
                "it out."
            )
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        error.filename = error.filename or path
        if error.errno not in _OF_THE_FILE:
            raise
        raise ImageError(
            f"{path} cannot be read: {error.strerror}. Expected a picture "
            "that this user may read; repair it, or take it out."
        ) from None


def _list_pictures(directory, recursive):
    """Returns the relative paths of all pictures, and what else there is."""
    pictures, others, seen = [], Counter(), set()
    for folder, folders, names in os.walk(directory, followlinks=True):
        real = os.path.realpath(folder)
        hidden = {n for n in folders if n.startswith((".", "__MACOSX"))}
        # A link back to a parent would be walked for ever.
        folders[:] = [] if real in seen else sorted(set(folders) - hidden)
        if real in seen:
            continue
        seen.add(real)
        inside = os.path.relpath(folder, directory).replace(os.sep, "/")
        for name in names:
            extension = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            if extension in EXTENSIONS:
                pictures.append(name if inside == "." else f"{inside}/{name}")
            else:
                others[extension or "without extension"] += 1
        if not recursive:
            if folders:
                others["subfolder(s)"] = len(folders)
            break
    return sorted(pictures), others


def _checked_images(images, name):
    if not isinstance(images, np.ndarray):
        images = np.asarray(images)
    if images.dtype != np.uint8:
        raise ValueError(
            f"{name} must be uint8 with values 0 to 255. Received: "
            f"dtype={images.dtype}. Images in [0, 1] become that by "
            "`np.round(255 * images).astype('uint8')`."
        )
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape:
        raise ValueError(
            f"{name} must have the shape (n, height, width) or (n, height, "
            f"width, channels), and hold something. Received: "
            f"shape={images.shape}"
        )
    if images.shape[1] in (1, 3) and images.shape[3] not in (1, 3, 4):
        raise ValueError(
            f"{name} look like channels first. Received: "
            f"shape={images.shape}. Use `images.transpose(0, 2, 3, 1)`."
        )
    return images


def _checked_labels(labels, count):
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]  # keras.datasets has them like this.
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise ValueError(
            f"`labels` must be {count} integers, one for each image. "
            f"Received: shape={labels.shape}, dtype={labels.dtype}"
        )
    return labels.astype(np.int32)
