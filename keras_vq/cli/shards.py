"""Codes of a whole data set in TFRecord shards, for priors to learn from.

A folder with `codes-00000-of-00004.tfrecord` and so on, and `codes.json`,
which says what they hold. Each record is a `tf.train.Example` with

* `codes`: the indices of one image, row by row, int64; of a preset with
  several levels `codes_1` (the coarsest), `codes_2`, ...
* `grid`, or `grid_1`, ...: rows and columns of these codes;
* `size`: height and width of the image in pixels;
* `name`: the file name;
* `label`: the label that a record had, or the number of the image's folder in
  the alphabet's order, where all images lie in subfolders.

A shard that is there is complete: the same command goes on with those that
are missing, and one that finds nothing missing does nothing.
"""

import dataclasses
import hashlib
import json
from pathlib import Path

from keras_vq.cli.errors import CommandError
from keras_vq.utils.files import atomic_path

FORMAT = "keras_vq.code_shards"
VERSION = 1
_MANIFEST = "codes.json"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What the shards of a folder hold; equal ones belong together.

    Attributes:
        preset: name or folder of the preset.
        weights_sha256: SHA-256 of its weights.
        codebook_sizes: number of codes of each level, coarse to fine.
        image_size: height and width that images were cut to, or None.
        images: number of images.
        names_sha256: SHA-256 of their names, in order.
        per_shard: images in a shard, at most.
        class_names: names of the labels, or None.
    """

    preset: str
    weights_sha256: str
    codebook_sizes: list
    image_size: list | None
    images: int
    names_sha256: str
    per_shard: int
    class_names: list | None

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.images // self.per_shard)

    def numbers(self, shard: int) -> range:
        """Numbers of the images in one shard."""
        start = shard * self.per_shard
        return range(start, min(start + self.per_shard, self.images))

    def path(self, folder: Path, shard: int) -> Path:
        """File of one shard."""
        name = f"codes-{shard:05}-of-{self.shards:05}.tfrecord"
        return folder / name

    def missing(self, folder: Path) -> list[int]:
        """Numbers of the shards that are not there yet."""
        shards = range(self.shards)
        return [i for i in shards if not self.path(folder, i).exists()]

    def write(self, folder: Path, overwrite: bool) -> None:
        """Writes the manifest, unless an equal one is there.

        Args:
            folder: where the shards go.
            overwrite: whether shards of something else may be deleted.

        Raises:
            CommandError: If shards of something else are there.
        """
        path = folder / _MANIFEST
        content = {
            "format": FORMAT,
            "version": VERSION,
            **dataclasses.asdict(self),
        }
        if path.exists():
            found = _read(path)
            # A preset may be called by its name or by its folder.
            if {**found, "preset": ""} == {**content, "preset": ""}:
                return
            if not overwrite:
                keys = [k for k in content if found.get(k) != content[k]]
                raise CommandError(
                    f"{folder} holds codes of something else: "
                    f"{', '.join(keys)} differ. Write to another folder, or "
                    "add --overwrite to replace them"
                )
            path.unlink()
        stale = sorted(folder.glob("codes-*-of-*.tfrecord"))
        if stale and not overwrite:
            raise CommandError(
                f"{stale[0]} exists already, and no {_MANIFEST} says what it "
                "holds. Write to another folder, or add --overwrite"
            )
        for shard in stale:
            shard.unlink()
        with atomic_path(path) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")


def names_sha256(names) -> str:
    """SHA-256 of the names of images, in order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def class_names(names) -> list | None:
    """Names of the classes, which are the folders that images lie in.

    Args:
        names: file names with "/".

    Returns:
        Sorted list, or None where not all images lie in subfolders.
    """
    folders = {folder_of(name) for name in names}
    return None if "" in folders else sorted(folders)


def folder_of(name: str) -> str:
    """First folder in the name of a file, empty where there is none."""
    return name.rpartition("/")[0].partition("/")[0]


def write_shard(path: Path, examples: list[dict]) -> None:
    """Writes one shard, which is whole or not there.

    Args:
        path: the file.
        examples: for each image a dict of bytes or lists of integers.
    """
    from keras_vq.data.examples import serialize_example
    from keras_vq.data.tfrecord import write_records

    with atomic_path(path) as temporary:
        write_records(temporary, map(serialize_example, examples))


def example_of(grids, size, name: str, label: int | None) -> dict:
    """The features of one image.

    Args:
        grids: its grids of codes, coarse to fine.
        size: height and width of the image.
        name: its file name.
        label: its label, or None.
    """
    example = {"size": list(size), "name": name.encode()}
    if label is not None:
        example["label"] = [label]
    for i, grid in enumerate(grids):
        suffix = "" if len(grids) == 1 else f"_{i + 1}"
        example[f"codes{suffix}"] = grid.ravel().tolist()
        example[f"grid{suffix}"] = list(grid.shape)
    return example


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ValueError(f"format is {content['format']!r}")
        return content
    except (KeyError, OSError, TypeError, ValueError) as error:
        raise CommandError(
            f"{path} is not what 'keras-vq encode --tfrecord' writes, or it "
            "is damaged. Write to another folder"
        ) from error
