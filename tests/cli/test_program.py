"""The program as a whole: help, list, info, train, and how quiet it is."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from cli_helpers import assert_shows, load, make_preset, reconstruction

import keras_vq
from keras_vq.cli.environment import prepare_tensorflow
from keras_vq.presets import pin, registry

ROOT = Path(__file__).parents[2]
COMMANDS = (
    "list",
    "info",
    "reconstruct",
    "encode",
    "decode",
    "convert",
    "train",
)


@pytest.fixture
def known(monkeypatch, tmp_path):
    """A registry with one preset, called vqvae_test."""
    folder = tmp_path / "applications" / "vqvae_test" / "preset"
    preset = make_preset(folder, seed=7)
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text())
    metadata["description"] = "Reconstructs noise."
    metadata["licence"] = "CC0-1.0"
    metadata["metadata"] = {"evaluation": {"psnr_db": 12.5}, "seed": 7}
    path.write_text(json.dumps(metadata))
    entry = {"vqvae_test": pin.pin("vqvae_test", folder)}
    (tmp_path / "registry.json").write_text(json.dumps(entry))
    monkeypatch.setattr(registry, "REGISTRY_PATH", tmp_path / "registry.json")
    monkeypatch.setattr(registry, "bundled_directories", lambda name: [folder])
    return preset


def test_list(program, known):
    status, text, error = program("list")
    assert (status, error) == (0, "")
    header, row, *without_weights = text.splitlines()
    assert "vqgan_imagenet" in " ".join(without_weights)
    assert header.split() == [
        "NAME", "MODEL", "PARAMETERS", "DESCRIPTION",
    ]  # fmt: skip
    count = keras_vq.models.VQVAE.from_preset(known).count_params()
    assert row.split(maxsplit=3) == [
        "vqvae_test", "VQVAE", f"{count:,}", "Reconstructs noise.",
    ]  # fmt: skip
    (entry,) = json.loads(program("list", "--json")[1])
    assert (entry["name"], entry["parameters"]) == ("vqvae_test", count)


def test_list_of_what_is_installed(program):
    status, text, _ = program("list", "--json")
    assert status == 0
    names = [entry["name"] for entry in json.loads(text)]
    assert names == sorted(keras_vq.presets.list_presets())


def test_list_without_presets(program, monkeypatch, tmp_path):
    (tmp_path / "registry.json").write_text("{}")
    monkeypatch.setattr(registry, "REGISTRY_PATH", tmp_path / "registry.json")
    status, text, error = program("list")
    assert (status, error) == (0, "")
    assert "No presets are installed" in text
    assert program("list", "--json")[1] == "[]\n"


@pytest.mark.parametrize("by_name", [True, False])
def test_info(program, known, by_name):
    preset = "vqvae_test" if by_name else known
    status, text, error = program("info", preset)
    assert (status, error) == (0, "")
    files = json.loads(Path(known, "metadata.json").read_text())["files"]
    for part in (
        f"preset: {preset}",
        "class: keras_vq>VQVAE",
        "description: Reconstructs noise.",
        "licence: CC0-1.0",
        "evaluation:\n  psnr_db: 12.5\n",
        "metadata:\n  seed: 7\n",
        "  codebook_size: 32",
        files["model.weights.h5"]["sha256"],
    ):
        assert part in text
    description = json.loads(program("info", preset, "--json")[1])
    assert description["arguments"]["codebook_size"] == 32
    assert description["files"]["model.weights.h5"] == files["model.weights.h5"]


def test_info_of_weights_that_are_elsewhere(program, monkeypatch, tmp_path):
    """Nothing is fetched to describe them."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    status, text, error = program("info", "vqvae2_ffhq")
    assert (status, error) == (0, "")
    for part in (
        "directory: fetched at the first use",
        "where: https://github.com/rosinality/vq-vae-2-pytorch/raw/ef5f67c46f9",
        "class: keras_vq>VQVAE2",
        "  state: verified on a file of this layout\n",
        "  vqvae_560.pt  unknown bytes  sha256 unknown  git_blob a71304f01e98",
        "    inplace_relu_residual: True\n",
    ):
        assert part in text
    description = json.loads(program("info", "vqvae2_ffhq", "--json")[1])
    assert description["parameters"] == 1_454_403
    assert not list(tmp_path.iterdir())


def test_info_of_an_unknown_name(fails, known):
    message = fails("info", "vqvae_tset")
    assert "Did you mean 'vqvae_test'?" in message


def test_the_name_goes_into_the_codes(program, known, photos, tmp_path):
    path, out = tmp_path / "codes.npz", tmp_path / "out"
    options = ["--preset", "vqvae_test"]
    assert program("encode", photos, path, *options)[0] == 0
    status, text, _ = program("decode", path, out)
    assert status == 0 and "with vqvae_test" in text
    expected, _ = reconstruction(known, load(photos / "b.png"))
    assert_shows(load(out / "b.png"), expected)


def test_help_teaches(program):
    status, text, error = program("--help")
    assert (status, error) == (0, "")
    assert all(name in text for name in COMMANDS)
    assert "examples:" in text
    for name in COMMANDS[:-1]:
        status, text, _ = program(name, "--help")
        assert status == 0
        assert f"examples:\n  keras-vq {name}" in text or name == "decode"
        assert "keras-vq " + name in text.split("examples:")[1]


def test_version(program):
    assert program("--version") == (0, f"keras-vq {keras_vq.__version__}\n", "")


def test_train_goes_to_the_launcher(program, monkeypatch):
    launcher = pytest.importorskip("keras_vq.training.train")
    status, text, _ = program("train", "--help")
    assert status == 0 and "--strategy" in text
    seen = []
    monkeypatch.setattr(launcher, "main", lambda words: seen.append(words) or 3)
    words = ["vqvae_cifar", "--data-dir", "DIR", "--help-me", "--json"]
    assert program("train", *words)[0] == 3
    assert program("--debug", "train", *words)[0] == 3
    assert seen == [words, words]


@pytest.mark.parametrize("words", [[], ["paint"], ["list", "more"], ["--x"]])
def test_wrong_usage(fails, words):
    assert "keras-vq" in fails(*words, status=2)


def test_interruption(program, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(keras_vq.presets, "list_presets", interrupt)
    assert program("list") == (130, "", "keras-vq: interrupted\n")


def test_help_and_mistakes_need_neither_keras_nor_numpy():
    # What takes seconds to import must not be needed to explain a command.
    code = (
        "import sys; sys.argv = ['/usr/bin/keras-vq'];"
        "from keras_vq.cli import main;"
        "codes = [main(['--help']), main(['encode', '-h']), main(['paint']),"
        " main(['encode', 'nothing', 'x.npz']), main(['decode', 'x.npz'])];"
        "assert codes == [0, 0, 2, 1, 2], codes;"
        "loaded = {'keras', 'numpy', 'tensorflow'} & set(sys.modules);"
        "assert not loaded, loaded"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_program_turns_on_what_tensorflow_leaves_off(monkeypatch):
    set_by_user = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "1"}
    monkeypatch.setattr(os, "environ", dict(set_by_user))
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    prepare_tensorflow()
    assert os.environ == set_by_user
    os.environ.clear()
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    prepare_tensorflow()
    assert os.environ == {"TF_CPP_MIN_LOG_LEVEL": "3"}
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    prepare_tensorflow()
    assert os.environ["TF_ENABLE_ONEDNN_OPTS"] == "1"


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow"
    or platform.machine() not in ("x86_64", "AMD64"),
    reason="oneDNN is asked for in TensorFlow, on x86",
)
@pytest.mark.parametrize("module", ["keras_vq.cli", "keras_vq.training.train"])
def test_tensorflow_computes_with_onednn_in_the_program(module):
    words = ["list"] if module == "keras_vq.cli" else ["no_such_recipe"]
    code = f"""
import atexit, os, runpy, sys
sys.argv = ["-m", *{words}]
sys.orig_argv = ["python", "-m", "{module}", *{words}]

def look():
    from tensorflow.python.util import _pywrap_util_port
    print("oneDNN", _pywrap_util_port.IsMklEnabled())

atexit.register(look)
runpy.run_module("{module}", run_name="__main__")
"""
    env = {k: v for k, v in os.environ.items() if k != "TF_ENABLE_ONEDNN_OPTS"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**env, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1:] == ["oneDNN True"], done.stderr


def run(*words, **environment):
    env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-m", "keras_vq.cli", *map(str, words)],
        env={**env, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
    )


def test_the_process_is_quiet(preset, photos, tmp_path):
    command = ["reconstruct", photos, tmp_path / "out", "--preset", preset]
    done = run(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    expected, _ = reconstruction(preset, load(photos / "b.png"))
    assert_shows(load(tmp_path / "out" / "b.png"), expected)
    done = run(*command)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "exists already" in done.stderr


def test_an_import_that_fails_shows_why():
    done = run("list", KERAS_BACKEND="nonsense")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("keras-vq: error: ")
    assert "nonsense" in done.stderr
