"""CIFAR-10's own files, made by hand, and hostile pickles."""

import builtins
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from keras_vq.data import from_cifar10, pipeline_of
from keras_vq.data.safe_pickle import UnsafePickleError, read_pickle

NAMES = {
    "train": [f"data_batch_{i}" for i in range(1, 6)],
    "test": ["test_batch"],
}


def rows(count, seed):
    """Returns (labels, pixels) and the images that they mean, by a loop."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    pixels = rng.integers(0, 256, (count, 3072), np.uint8)
    images = np.zeros((count, 32, 32, 3), np.uint8)
    for i in range(count):
        for y in range(32):
            for x in range(32):
                place = 32 * y + x
                images[i, y, x] = [
                    pixels[i, place + 1024 * c] for c in range(3)
                ]
    return labels, pixels, images


def write_binary(path, labels, pixels):
    with open(path, "wb") as file:
        for label, row in zip(labels, pixels, strict=True):
            file.write(bytes([label]) + row.tobytes())


def python_2_pickle(labels, pixels):
    """The bytes that Python 2 wrote, instruction by instruction."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def integer(value):
        return b"J" + value.to_bytes(4, "little", signed=True)

    raw = pixels.tobytes()
    return b"".join(
        [
            b"\x80\x02}q\x01(",
            text(b"data"),
            b"cnumpy.core.multiarray\n_reconstruct\nq\x02",
            b"cnumpy\nndarray\nq\x03",
            b"K\x00\x85" + text(b"b") + b"\x87Rq\x04",
            b"(K\x01" + integer(len(labels)) + integer(3072) + b"\x86",
            b"cnumpy\ndtype\nq\x05" + text(b"u1") + b"K\x00K\x01\x87Rq\x06",
            b"(K\x03" + text(b"|") + b"NNN" + integer(-1) + integer(-1),
            b"K\x00tb\x89",
            b"T" + len(raw).to_bytes(4, "little") + raw + b"tb",
            text(b"labels"),
            b"]q\x07(" + b"".join(b"K" + bytes([x]) for x in labels) + b"e",
            text(b"batch_label") + text(b"testing batch 1 of 1"),
            text(b"filenames") + b"](" + text(b"a.png") * len(labels) + b"e",
            b"u.",
        ]
    )


def modern_pickle(labels, pixels, protocol):
    batch = {b"data": pixels, b"labels": [int(x) for x in labels]}
    return pickle.dumps(batch, protocol)


def test_the_hand_made_python_2_pickle_is_one():
    labels, pixels, _ = rows(2, 0)
    batch = pickle.loads(python_2_pickle(labels, pixels), encoding="bytes")
    np.testing.assert_array_equal(batch[b"data"], pixels)
    assert batch[b"labels"] == list(labels)


def write_all(folder, version, count=3):
    folder.mkdir(parents=True, exist_ok=True)
    images, labels = {}, {}
    for split, names in NAMES.items():
        parts = [rows(count, hash((split, i)) % 997) for i in range(len(names))]
        for name, (numbers, pixels, _) in zip(names, parts, strict=True):
            if version == "binary":
                write_binary(folder / f"{name}.bin", numbers, pixels)
            else:
                content = (
                    python_2_pickle(numbers, pixels)
                    if version == "python 2"
                    else modern_pickle(numbers, pixels, version)
                )
                (folder / name).write_bytes(content)
        labels[split] = np.concatenate([p[0] for p in parts])
        images[split] = np.concatenate([p[2] for p in parts])
    return images, labels


@pytest.mark.parametrize("version", ["binary", "python 2", 2, 4])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("where", ["inside", "parent"])
def test_both_versions(tmp_path, version, split, where):
    ending = "bin" if version == "binary" else "py"
    folder = tmp_path / f"cifar-10-batches-{ending}"
    images, labels = write_all(folder, version)
    directory = folder if where == "inside" else tmp_path
    dataset = from_cifar10(directory, split, labels=True, batch_size=50)
    ((found, numbers),) = dataset
    np.testing.assert_array_equal(np.round((found + 1) * 127.5), images[split])
    np.testing.assert_array_equal(numbers, labels[split])
    assert pipeline_of(dataset).class_names[3] == "cat"


def test_what_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        from_cifar10(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="Extract cifar-10-binary"):
        from_cifar10(tmp_path)
    with pytest.raises(ValueError, match="'train' or 'test'"):
        from_cifar10(tmp_path, "val")
    write_all(tmp_path, "binary", 1)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(FileNotFoundError, match="data_batch_4.bin is missing"):
        from_cifar10(tmp_path)


def test_damaged_binary_batches(tmp_path):
    labels, pixels, _ = rows(2, 0)
    path = tmp_path / "test_batch.bin"
    write_binary(path, labels, pixels)
    good = path.read_bytes()
    path.write_bytes(good[:-1])
    with pytest.raises(ValueError, match="multiple of 3073.*6145 bytes"):
        from_cifar10(tmp_path, "test")
    path.write_bytes(b"\x0a" + good[1:])
    with pytest.raises(ValueError, match="labels from 0 to 9"):
        from_cifar10(tmp_path, "test")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="0 bytes"):
        from_cifar10(tmp_path, "test")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_truncated_pickle(tmp_path, protocol):
    labels, pixels, _ = rows(2, 0)
    content = modern_pickle(labels, pixels, protocol)
    for keep in (0, 1, 10, 100, 3000, len(content) - 1):
        (tmp_path / "test_batch").write_bytes(content[:keep])
        with pytest.raises(ValueError, match="not a complete pickle"):
            from_cifar10(tmp_path, "test")


@pytest.mark.parametrize(
    "batch, message",
    [
        ([1, 2], "must hold a dict"),
        ({"data": 1}, "'data' and 'labels'"),
        ({"data": b"x", "labels": []}, "not an array"),
        ({"data": np.zeros((2, 5), np.uint8), "labels": [1, 2]}, "3072"),
        ({"data": np.zeros((2, 3072)), "labels": [1, 2]}, "unsigned bytes"),
        ({"data": np.zeros((2, 3072), np.uint8), "labels": [1]}, "2 labels"),
    ],
)
def test_pickles_of_something_else(tmp_path, batch, message):
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, 2))
    with pytest.raises(ValueError, match=message):
        from_cifar10(tmp_path, "test")


class Hostile:
    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


PAYLOADS = {
    "system": Hostile(os.system, "touch {}"),
    "exec": Hostile(builtins.exec, "open({!r}, 'w')"),
    "popen": Hostile(subprocess.Popen, ["touch", "{}"]),
    "open": Hostile(builtins.open, "{}", "w"),
    "getattr": Hostile(builtins.getattr, os, "system"),
    "import": Hostile(builtins.__import__, "antigravity"),
    "numpy": Hostile(np.fromfile, "/etc/passwd"),
    "object array": np.array([Hostile(os.system, "touch {}")], object),
}
INSTRUCTIONS = {
    "inst": b"(S'touch {}'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch {}'\no.",
    "persistent": b"Pos.system\n.",
    "extension": b"\x82\x01.",
    "newobj": b"\x80\x02cos\nsystem\n)\x81.",
    "state of a class": b"\x80\x02cnumpy\nndarray\n}U\x01aK\x01sb.",
    "call of data": b"\x80\x02]K\x01\x85R.",
    "attribute by dots": b"\x80\x04\x8c\x05numpy\x8c\x0bf2py.os.sys\x93.",
    "codec": b"\x80\x02c_codecs\nencode\nK\x05\x85R.",
}


def fill(payload, target):
    """Puts the file that must never appear into the payload."""
    if isinstance(payload, bytes):
        return payload.replace(b"{}", str(target).encode())
    if isinstance(payload, Hostile):
        function, args = payload.call
        args = [
            [str(x).format(target) for x in a]
            if isinstance(a, list)
            else a.format(target)
            if isinstance(a, str)
            else a
            for a in args
        ]
        return Hostile(function, *args)
    return payload


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", PAYLOADS)
def test_hostile_pickles_run_nothing(tmp_path, name, protocol):
    if name == "getattr":
        content = b"cbuiltins\ngetattr\n(cos\nenviron\nS'x'\ntR."
    else:
        content = pickle.dumps(fill(PAYLOADS[name], tmp_path / "ran"), protocol)
    refuse(tmp_path, content)


@pytest.mark.parametrize("name", INSTRUCTIONS)
def test_hostile_instructions_run_nothing(tmp_path, name):
    refuse(tmp_path, fill(INSTRUCTIONS[name], tmp_path / "ran"))


def refuse(folder, content):
    path = folder / "test_batch"
    path.write_bytes(content)
    before = set(sys.modules)
    with pytest.raises(UnsafePickleError, match="is refused"):
        from_cifar10(folder, "test")
    assert not (folder / "ran").exists()
    assert not {m for m in set(sys.modules) - before if "antigrav" in m}


def test_a_wild_memo_number_allocates_nothing(tmp_path):
    path = tmp_path / "bomb"
    path.write_bytes(b"\x80\x02Nr\xff\xff\xff\xff.")
    assert read_pickle(str(path)) is None


def test_random_damage_gives_one_kind_of_error(tmp_path):
    labels, pixels, _ = rows(1, 0)
    good = python_2_pickle(labels, pixels)
    path = tmp_path / "test_batch"
    rng = np.random.default_rng(0)
    # The part before the pixels and the part behind them: instructions.
    start = good.index(pixels.tobytes())
    places = [*range(start), *range(start + 3072, len(good))]
    for _ in range(120):
        bad = bytearray(good)
        for place in rng.choice(places, 2):
            bad[place] = rng.integers(256)
        path.write_bytes(bytes(bad))
        try:
            from_cifar10(tmp_path, "test")
        except ValueError as error:
            assert str(path) in str(error)
