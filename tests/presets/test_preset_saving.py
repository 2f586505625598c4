"""Saving is all or nothing, whatever stops it."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from preset_models import TinyModel

from keras_vq import presets
from keras_vq.presets import (
    add_metadata,
    load_preset,
    save_preset,
    saving,
    source,
    verify,
)
from keras_vq.utils.files import exchange


def content(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


class Stop(BaseException):
    """Neither Exception nor Error: as rude as KeyboardInterrupt."""


STEPS = [
    "write_json",
    "write_weights",
    "fingerprint",
    "_move_into_place",
    "_sync_directory",
]


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("error", [OSError("No space left"), Stop()])
@pytest.mark.parametrize("step", STEPS)
def test_nothing_is_left_behind_by_an_error(
    tiny_model, saved, tmp_path, monkeypatch, step, error, overwrite
):
    target = tmp_path / "preset"
    if overwrite:
        save_preset(tiny_model, target, metadata={"version": 1})
    before = content(tmp_path)

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(saving, step, fail)
    with pytest.raises(type(error)):
        save_preset(tiny_model, target, overwrite=overwrite)
    assert content(tmp_path) == before
    assert target.exists() == overwrite


def test_a_disk_that_fills_up_while_weights_are_written(
    tiny_model, tmp_path, monkeypatch
):
    before = tiny_model.scale.numpy()
    tiny_model.average = before * 2
    calls = []
    original = presets.weights._to_stored

    def full(value, float16, label):
        calls.append(label)
        if len(calls) == 5:
            raise OSError(28, "No space left on device")
        return original(value, float16, label)

    monkeypatch.setattr(presets.weights, "_to_stored", full)
    with pytest.raises(OSError, match="No space"):
        save_preset(tiny_model, tmp_path / "preset")
    tiny_model.average = None
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(tiny_model.scale, before)


def test_the_old_preset_comes_back_when_the_rename_fails(
    tiny_model, tmp_path, monkeypatch
):
    target = tmp_path / "preset"
    save_preset(tiny_model, target, metadata={"version": 1})
    before = content(tmp_path)
    rename = os.rename

    def fail(source, destination):
        if ".tmp-" in str(source):
            raise OSError("rename")
        rename(source, destination)

    monkeypatch.setattr(saving, "exchange", lambda *paths: False)
    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="rename"):
        save_preset(tiny_model, target, overwrite=True)
    assert content(tmp_path) == before


@pytest.mark.parametrize("at_once", [True, False])
def test_overwriting_replaces_the_preset_and_keeps_other_files(
    tiny_model, preset, monkeypatch, at_once
):
    if not at_once:  # Windows, and some file systems.
        monkeypatch.setattr(saving, "exchange", lambda *paths: False)
    (preset / "README.md").write_text("A card.")
    (preset / "samples").mkdir()
    (preset / "samples" / "a.txt").write_text("a")
    with pytest.raises(presets.PresetError, match="overwrite=True"):
        save_preset(tiny_model, preset)
    model = TinyModel(units=3)
    save_preset(model, preset, overwrite=True)
    assert load_preset(TinyModel, preset).units == 3
    assert (preset / "README.md").read_text() == "A card."
    assert (preset / "samples" / "a.txt").read_text() == "a"
    assert [p.name for p in preset.parent.iterdir()] == ["preset"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_no_preset_is_never_replaced(tiny_model, tmp_path, overwrite):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("1")
    (tmp_path / "file").write_text("2")
    before = content(tmp_path)
    for name, message in (("thesis", "other files"), ("file", "is a file")):
        with pytest.raises(presets.PresetError, match=message):
            save_preset(tiny_model, tmp_path / name, overwrite=overwrite)
    assert content(tmp_path) == before


def test_an_empty_directory_is_filled_and_parents_are_made(
    tiny_model, tmp_path
):
    (tmp_path / "empty").mkdir()
    save_preset(tiny_model, str(tmp_path / "empty"))
    save_preset(tiny_model, tmp_path / "a" / "b" / "c")
    verify(tmp_path / "empty")
    verify(tmp_path / "a" / "b" / "c")


def test_a_link_to_a_directory_is_followed(tiny_model, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save_preset(tiny_model, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    verify(tmp_path / "real")


def test_permissions_are_those_of_ordinary_files(tiny_model, tmp_path):
    old = os.umask(0o022)
    try:
        save_preset(tiny_model, tmp_path / "preset")
    finally:
        os.umask(old)
    mode = (tmp_path / "preset").stat().st_mode
    assert stat.S_IMODE(mode) == 0o755
    for path in (tmp_path / "preset").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_facts_that_are_added_later(tiny_model, preset):
    before = content(preset)
    add_metadata(preset, {"evaluation": {"psnr_db": 25.5}, "data": "Noise."})
    after = content(preset)
    facts = json.loads(after.pop("metadata.json"))
    old = json.loads(before.pop("metadata.json"))
    assert after == before
    assert facts["metadata"] == {"seed": 0, "evaluation": {"psnr_db": 25.5}}
    assert facts["data"] == "Noise."
    for name in ("metadata", "data"):
        del facts[name], old[name]
    assert facts == old
    verify(preset)
    with pytest.raises(presets.PresetError, match="what JSON can"):
        add_metadata(preset, {"value": float("nan")})
    assert content(preset)["model.weights.h5"] == after["model.weights.h5"]
    with pytest.raises(presets.PresetError):
        add_metadata(preset.parent, {})


def test_metadata_that_json_cannot_hold(tiny_model, tmp_path):
    for value in (object(), float("nan"), {1, 2}):
        with pytest.raises(presets.PresetError, match="what JSON can"):
            save_preset(
                tiny_model, tmp_path / "preset", metadata={"value": value}
            )
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exchanged_is_left_alone(tmp_path):
    (tmp_path / "a").mkdir()
    assert not exchange(tmp_path / "a", tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def can_exchange(folder):
    for name in ("first", "second"):
        (folder / name).mkdir()
    able = exchange(folder / "first", folder / "second")
    for name in ("first", "second"):
        (folder / name).rmdir()
    return able


def test_there_is_a_preset_at_every_moment(tmp_path, preset, monkeypatch):
    """Looked at wherever the names in the directory may change."""
    if not can_exchange(tmp_path):
        pytest.skip("this file system cannot exchange directories")
    seen = []

    def looked_at(function):
        def wrapper(*args, **kwargs):
            seen.append(verify(preset))
            result = function(*args, **kwargs)
            seen.append(verify(preset))
            return result

        return wrapper

    monkeypatch.setattr(saving, "exchange", looked_at(exchange))
    monkeypatch.setattr(os, "rename", looked_at(os.rename))
    monkeypatch.setattr(shutil, "rmtree", looked_at(shutil.rmtree))
    save_preset(TinyModel(units=3), preset, overwrite=True)
    assert len(seen) == 4  # One exchange; then the old one is removed.
    assert seen[0] != seen[1] == seen[2] == seen[3]


def test_a_preset_that_is_replaced_while_it_is_read(preset, monkeypatch):
    """The description of the old one does not meet weights of the new one."""
    read_config = source.Source.read_config
    calls = []

    def replacing(self):
        config = read_config(self)
        if not calls:
            save_preset(TinyModel(units=3), preset, overwrite=True)
        calls.append(config)
        return config

    monkeypatch.setattr(source.Source, "read_config", replacing)
    assert load_preset(TinyModel, preset).units == 3
    assert len(calls) == 2
    # Damage is damage, and not tried again.
    (preset / "model.weights.h5").write_bytes(b"damaged")
    with pytest.raises(presets.PresetError, match="truncated"):
        load_preset(TinyModel, preset)
    assert len(calls) == 3


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_killed_while_saving_again_and_again(tmp_path):
    """Whatever moment it is, the preset is whole: the old or the new one."""
    code = f"""
        import sys
        sys.path.insert(0, {os.path.dirname(__file__)!r})
        from preset_models import TinyModel
        from keras_vq.presets import save_preset
        model = TinyModel()
        save_preset(model, "preset")
        print("ready", flush=True)
        for child in iter(lambda: sys.stdin.readline(), ""):
            import os
            process = os.fork()
            if not process:
                while True:
                    save_preset(model, "preset", overwrite=True)
            print(process, flush=True)
            os.waitpid(process, 0)
            print("gone", flush=True)
    """
    root = os.path.dirname(os.path.dirname(os.path.dirname(__file__)))
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    able = can_exchange(tmp_path)
    rng = np.random.default_rng(0)
    between = 0
    try:
        assert process.stdout.readline() == "ready\n"
        for _ in range(30):
            process.stdin.write("again\n")
            process.stdin.flush()
            child = int(process.stdout.readline())
            time.sleep(rng.uniform(0.0, 0.1))
            os.kill(child, signal.SIGKILL)
            assert process.stdout.readline() == "gone\n"
            if (tmp_path / "preset").exists():
                verify(tmp_path / "preset")
                continue
            # Killed between two renames, where they cannot be one: the old one
            # is there, complete. Those of earlier kills are half removed.
            olds = tmp_path.glob(".preset.old-*")
            old = max(olds, key=lambda path: path.stat().st_ctime_ns)
            verify(old)
            old.rename(tmp_path / "preset")
            between += 1
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()
    assert not (able and between)
    # Some were killed in the middle of writing, or nothing was tried.
    assert list(tmp_path.glob(".preset.tmp-*"))
