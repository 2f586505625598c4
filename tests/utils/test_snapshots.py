"""A snapshot is whole or not there, and is what was written."""

import os
import subprocess
import sys
import textwrap

import keras
import ml_dtypes
import numpy as np
import pytest

from keras_vq.utils import snapshots

ARRAYS = {
    "a/0": np.arange(12, dtype="float32").reshape(3, 4),
    "a/1": np.array(7, "int32"),
    "b/0": np.array([-0.0, np.nan, 1.5], ml_dtypes.bfloat16),
    "c": np.zeros((0, 3), "uint64"),
}
INFO = {"epoch": 1, "text": "ä", "list": [1, None, 2.5]}


def _write(directory, epoch=1, step=20, arrays=None):
    path = directory / snapshots.snapshot_name(epoch, step)
    snapshots.write_snapshot(path, arrays or ARRAYS, INFO, {"epoch": epoch})
    return path


def test_round_trip(tmp_path):
    arrays, info = snapshots.read_snapshot(_write(tmp_path))
    assert info == INFO and set(arrays) == set(ARRAYS)
    for name, want in ARRAYS.items():
        assert arrays[name].dtype == want.dtype
        assert arrays[name].shape == want.shape
        assert arrays[name].tobytes() == want.tobytes()


def test_order_and_rotation(tmp_path):
    assert snapshots.find_snapshots(tmp_path / "none") == []
    for epoch, step in ((10, 5), (2, 1234567), (2, 30), (9999, 0), (10000, 0)):
        _write(tmp_path, epoch, step)
    (tmp_path / "notes").mkdir()
    (tmp_path / ".0003-000001.tmp").mkdir()
    names = [path.name for path in snapshots.find_snapshots(tmp_path)]
    assert names == [
        "0002-000030",
        "0002-1234567",
        "0010-000005",
        "9999-000000",
        "10000-000000",
    ]
    snapshots.remove_old_snapshots(tmp_path, 2)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["10000-000000", "9999-000000", "notes"]


@pytest.mark.parametrize("name", ["state.npz", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "other"])
def test_damage_is_found(name, damage, tmp_path):
    good, bad = _write(tmp_path, 1), _write(tmp_path, 2)
    file = bad / name
    content = file.read_bytes()
    if damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "missing":
        file.unlink()
    else:
        file.write_bytes(b'{"format": 1, "sha256": []}')
    with pytest.raises(snapshots.DamagedSnapshotError, match="0002-000020"):
        snapshots.read_snapshot(bad)
    with pytest.warns(UserWarning, match="0002-000020.*before it"):
        path, arrays, info = snapshots.newest_snapshot(tmp_path)
    assert path == good and info == INFO
    assert (tmp_path / "damaged-0002-000020").is_dir()
    assert snapshots.find_snapshots(tmp_path) == [good]


def test_every_flipped_bit_of_the_state_is_found(tmp_path):
    path = _write(tmp_path)
    content = (path / "state.npz").read_bytes()
    for position in range(0, 8 * len(content), 97):
        flipped = bytearray(content)
        flipped[position // 8] ^= 1 << position % 8
        (path / "state.npz").write_bytes(flipped)
        with pytest.raises(snapshots.DamagedSnapshotError):
            snapshots.read_snapshot(path)


def test_all_damaged(tmp_path):
    (_write(tmp_path) / "state.npz").write_bytes(b"")
    with (
        pytest.warns(UserWarning),
        pytest.raises(
            snapshots.DamagedSnapshotError, match="No checkpoint in .* is sound"
        ),
    ):
        snapshots.newest_snapshot(tmp_path)


def test_newer_format(tmp_path):
    path = _write(tmp_path)
    (path / "manifest.json").write_text('{"format": 2}')
    with pytest.raises(snapshots.SnapshotError, match="another version"):
        snapshots.newest_snapshot(tmp_path)
    assert path.is_dir()


def test_disk_full(tmp_path):
    """A limit on the size of files stands in for a full disk."""
    good = _write(tmp_path, 1)
    program = textwrap.dedent(
        """
        import pathlib, resource, signal, sys
        import numpy as np
        from keras_vq.utils import snapshots
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        directory = pathlib.Path(sys.argv[1])
        try:
            snapshots.write_snapshot(
                directory / "0002-000000", {"a": np.zeros(10**6)}, {}, {}
            )
        except snapshots.SnapshotError as error:
            print(error)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        env={**os.environ, "KERAS_BACKEND": keras.backend.backend()},
    )
    assert f"{tmp_path / '0002-000000'} could not be written" in done.stdout
    assert "File too large" in done.stdout and not done.returncode
    assert [path.name for path in tmp_path.iterdir()] == [good.name]
    assert snapshots.newest_snapshot(tmp_path)[0] == good


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(snapshots.SnapshotError, match="could not be written"):
        _write(tmp_path / "file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder(tmp_path):
    good = _write(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(snapshots.SnapshotError, match="could not be"):
            _write(tmp_path, 2)
        assert snapshots.newest_snapshot(tmp_path)[0] == good
    finally:
        tmp_path.chmod(0o700)
