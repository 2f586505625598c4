"""Every kind of bad file in every source, in both modes; the cap; mutations."""

import contextlib
import os
import pathlib
import re
import warnings

import bad_files
import numpy as np
import pytest
import tensorflow as tf
from bad_files import BAD_RECORDS, CAPPED, KINDS, encode, example

from keras_vq.data import (
    ImageError,
    decode_image,
    from_folder,
    from_tfds,
    from_tfrecord,
    named_errors,
    pipeline_of,
)

MUTATIONS = 4000
COUNT = 4
SIZE = 512  # As large as it takes for the narrow picture to be refused.


@pytest.fixture(scope="module")
def picture():
    """A photograph of tiny ImageNet where there is one."""
    folder = os.environ.get("KERAS_VQ_DATA")
    if folder and (pathlib.Path(folder) / "tiny_imagenet").is_dir():
        return bad_files.real_picture(pathlib.Path(folder))
    return bad_files.real_picture()


def good_pictures():
    picture = bad_files.real_picture()
    return [encode(np.roll(picture, 7 * i, 0), "PNG") for i in range(COUNT)]


class Folder:
    """Writes encoded pictures, and reads them again."""

    def __init__(self, directory):
        self.directory = directory
        directory.mkdir()

    def write(self, pictures, suffix):
        for old in self.directory.iterdir():
            old.unlink()
        for i, data in enumerate(pictures):
            ending = suffix if i == 1 else ".png"
            (self.directory / f"{i}{ending}").write_bytes(data)
        self.bad = f"{self.directory}/1{suffix}"

    def read(self, **options):
        return from_folder(self.directory, **options)


class Records:
    def __init__(self, directory):
        directory.mkdir()
        self.path = directory / "a.tfrecord"

    def write(self, pictures, suffix):
        records = [example(image=p, label=[0]) for p in pictures]
        self.bad = f"at byte {len(records[0]) + 16} of {self.path}"
        bad_files.write_records(self.path, records)

    def read(self, **options):
        return from_tfrecord(self.path, **options)


class Prepared:
    """A data set that tensorflow-datasets prepared, its pictures replaced."""

    kind = "tfrecord"

    def __init__(self, directory):
        tfds = pytest.importorskip("tensorflow_datasets")
        if self.kind == "array_record":
            pytest.importorskip("array_record")
        images = np.zeros((COUNT, 64, 64, 3), np.uint8)
        data = tf.data.Dataset.from_tensor_slices({"image": images})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tfds.dataset_builders.store_as_tfds_dataset(
                name="few",
                version="1.0.0",
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(
                            shape=(None, None, 3), encoding_format="png"
                        )
                    }
                ),
                split_datasets={"train": data},
                data_dir=directory,
                file_format=self.kind,
                disable_shuffling=True,
            )
        self.directory = directory
        (self.path,) = directory.glob(f"few/1.0.0/*.{self.kind}-*")

    def write(self, pictures, suffix):
        records = [example(image=p) for p in pictures]
        self.bad = f"at byte {len(records[0]) + 16} of {self.path}"
        bad_files.write_records(self.path, records)

    def read(self, **options):
        return from_tfds("few", data_dir=self.directory, **options)


class ArrayRecords(Prepared):
    kind = "array_record"

    def write(self, pictures, suffix):
        from array_record.python.array_record_module import ArrayRecordWriter

        self.bad = "few[train][1]"
        writer = ArrayRecordWriter(str(self.path), "group_size:1")
        for data in pictures:
            writer.write(example(image=data))
        writer.close()


SOURCES = {
    "folder": Folder,
    "TFRecord": Records,
    "tfds, TFRecord": Prepared,
    "tfds, array_record": ArrayRecords,
}


def as_pixels(batch):
    return np.round((np.asarray(batch) + 1) * 127.5).astype(int)


def accounted_for(source, kind, data):
    """Whether both modes do with this kind what the rule says."""
    pictures = good_pictures()
    pictures[1] = data
    source.write(pictures, kind.suffix)
    if kind.refused is None:
        raised, skipped = source.read(), source.read(on_error="skip")
        images = [
            np.concatenate([as_pixels(b) for b in d]) for d in (raised, skipped)
        ]
        expected = bad_files.as_pillow_has_it(data)
        return (
            np.array_equal(*images)
            and len(images[0]) == COUNT
            and np.abs(images[0][1] - expected).max() <= 1
            and not pipeline_of(skipped).skipped
        )
    options = dict(image_size=SIZE, batch_size=3)
    with pytest.raises(ImageError, match=kind.refused) as caught:
        with named_errors():
            list(source.read(**options))
    dataset = source.read(on_error="skip", **options)
    batches = [np.asarray(batch) for batch in dataset]
    ((name, reason),) = pipeline_of(dataset).skipped
    # In an endless one the third picture stands where the second was.
    endless = source.read(on_error="skip", repeat=True, **options)
    first = np.asarray(next(iter(endless)))
    return (
        source.bad in str(caught.value)
        and source.bad in name
        and bool(re.search(kind.refused, reason))
        and [len(batch) for batch in batches] == [2, 1]
        and np.array_equal(first[[0, 1]], batches[0][[0, 1]])
        and np.array_equal(first[1], first[2])
    )


def test_every_kind_in_every_source_in_both_modes(tmp_path, picture, figure):
    files = {kind.row: kind.make(picture) for kind in KINDS}
    refused = sum(kind.refused is not None for kind in KINDS)
    done, wrong, sources = 0, [], 0
    for name, make in SOURCES.items():
        try:
            source = make(tmp_path / make.__name__)
        except pytest.skip.Exception as reason:
            print(f"{name}: left out ({reason})")
            continue
        sources += 1
        for kind in KINDS:
            done += 1
            if not accounted_for(source, kind, files[kind.row]):
                wrong.append((name, kind.row))
    figure(
        "bad and odd files accounted for, in both modes",
        f"{done - len(wrong)}/{done} ({len(KINDS)} kinds, {refused} of them "
        f"refused, in {sources} kinds of source)",
    )
    assert not wrong and sources >= 2


def test_bad_records(tmp_path, figure):
    good = [example(image=p, label=[0]) for p in good_pictures()]
    right = 0
    for number, (bad, reason) in enumerate(BAD_RECORDS.values()):
        records = [*good[:2], bad, *good[2:]]
        path = bad_files.write_records(tmp_path / str(number), records)
        with pytest.raises(ImageError, match=reason), named_errors():
            list(from_tfrecord(path, labels=True))
        dataset = from_tfrecord(path, labels=True, on_error="skip")
        count = sum(len(batch) for batch, _ in dataset)
        right += count == COUNT and len(pipeline_of(dataset).skipped) == 1
    figure("bad records accounted for", f"{right}/{len(BAD_RECORDS)}")
    assert right == len(BAD_RECORDS)


@contextlib.contextmanager
def counted_decoders(monkeypatch):
    calls = []
    with monkeypatch.context() as patched:
        for name in [n for n in dir(tf.raw_ops) if n.startswith("Decode")]:
            real = getattr(tf.raw_ops, name)

            def count(*args, real=real, **kwargs):
                calls.append(real)
                return real(*args, **kwargs)

            patched.setattr(tf.raw_ops, name, count)
        yield calls


def test_no_decoder_is_called_above_the_cap(
    tmp_path, picture, figure, monkeypatch
):
    """Sizes from just above the cap to the largest a header can declare."""
    makers = {
        "jpeg": (bad_files.jpeg_with_size, 65535),
        "png": (lambda _, h, w: bad_files.png(w, h, b"\0"), 2**31 - 1),
        "gif": (bad_files.gif_with_frame, 65535),
        "webp": (bad_files.webp_with_size, 16383),
        "bmp": (bad_files.bmp_with_size, 2**31 - 1),
    }
    rng = np.random.default_rng(0)
    files = [kind.make(picture) for kind in CAPPED]
    for make, largest in makers.values():
        shapes = [(8193, 8192), (8192, 8193), (largest, largest)]
        while len(shapes) < 40:
            shape = np.exp(rng.uniform(0, np.log(largest), 2)).astype(int)
            if shape.prod() > 2**26:
                shapes.append(tuple(map(int, shape)))
        files += [make(picture, *shape) for shape in shapes]
    with counted_decoders(monkeypatch) as calls:
        for data in files:
            with pytest.raises(ImageError, match="more than max_pixels"):
                decode_image(data)
        source = Folder(tmp_path / "folder")
        for i, data in enumerate(files):
            (source.directory / f"{i:04}.jpg").write_bytes(data)
        (source.directory / "good.png").write_bytes(encode(picture, "PNG"))
        dataset = source.read(on_error="skip", max_bad_fraction=1)
        assert sum(len(batch) for batch in dataset) == 1
        assert len(pipeline_of(dataset).skipped) == len(files)
    # The good one tells the size, and is then read for its batch.
    above = len(calls) - 2
    figure("decodes above the pixel cap", f"{above} of {2 * len(files)}")
    assert above == 0


def mutated(data, rng):
    """One of five kinds of damage."""
    changed = bytearray(data)
    kind, place = rng.integers(5), int(rng.integers(len(data)))
    length = int(rng.integers(1, 64))
    if kind == 0:
        for at in rng.integers(0, len(data), rng.integers(1, 6)):
            changed[at] ^= 1 << rng.integers(8)
    elif kind == 1:
        changed[place : place + length] = rng.bytes(length)
    elif kind == 2:
        del changed[place:]
    elif kind == 3:
        del changed[place : place + length]
    else:  # The header, where the sizes and lengths are.
        at = int(rng.integers(min(len(data), 200)))
        changed[at : at + 2] = rng.bytes(2)
    return bytes(changed)


def test_mutations_give_an_image_or_an_image_error(picture, figure):
    originals = [
        bad_files.jpeg(picture),
        bad_files.jpeg(picture, progressive=True),
        bad_files.rotated(picture),
        encode(picture, "PNG"),
        bad_files.with_alpha(picture, "RGBA"),
        bad_files.with_palette(picture, transparency=3),
        bad_files.sixteen_bits(picture),
        bad_files.animated(picture, "GIF"),
        bad_files.animated(picture, "WEBP", lossless=True),
        encode(picture, "WEBP"),
        encode(picture, "BMP"),
    ]
    rng = np.random.default_rng(0)
    images = refused = 0
    for number in range(MUTATIONS):
        data = mutated(originals[number % len(originals)], rng)
        try:
            image = decode_image(data, max_pixels=2**22)
        except ImageError:
            refused += 1
            continue
        assert image.dtype == np.uint8 and image.ndim == 3
        assert image.shape[-1] == 3 and 0 < image[..., 0].size <= 2**22
        images += 1
    figure(
        "mutated files that gave an image or ImageError",
        f"{images + refused}/{MUTATIONS} ({refused} refused)",
    )
    assert refused > MUTATIONS / 4 and images > MUTATIONS / 50


def test_damage_inside_a_scan(tmp_path, picture, figure):
    """What decoding notices of it, and what a TFRecord's checksum does."""
    data, rng = bad_files.jpeg(picture), np.random.default_rng(0)
    start = data.index(b"\xff\xda") + 14
    path = pathlib.Path(
        bad_files.write_records(tmp_path / "a", [example(image=data)])
    )
    record = path.read_bytes()
    offset = record.index(data)
    decoding = checksum = 0
    for _ in range(200):
        place, bit = int(rng.integers(start, len(data) - 2)), rng.integers(8)
        changed = bytearray(data)
        changed[place] ^= 1 << bit
        try:
            decode_image(bytes(changed))
        except ImageError:
            decoding += 1
        broken = bytearray(record)
        broken[offset + place] ^= 1 << bit
        path.write_bytes(bytes(broken))
        try:
            from_tfrecord(path)
        except ImageError:
            checksum += 1
    figure(
        "flipped bits in a JPEG's scan that are found",
        f"{decoding}/200 in a file, {checksum}/200 in a TFRecord",
    )
    assert checksum == 200
