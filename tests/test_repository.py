"""The package as it is installed: metadata, wheel, imports, bundled files."""

import ast
import configparser
import importlib.metadata
import os
import pathlib
import pkgutil
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

import keras_vq

ROOT = pathlib.Path(__file__).parents[1]
# Folder in the repository -> package when installed.
PACKAGES = {
    "keras_vq": "keras_vq",
    "applications": "keras_vq.applications",
    "training": "keras_vq.training",
}
HEAVY = {
    "PIL",
    "grain",
    "huggingface_hub",
    "jax",
    "keras_cv",
    "keras_hub",
    "safetensors",
    "scipy",
    "skimage",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
}


def setup_cfg():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def lines(section, option):
    return setup_cfg()[section][option].split()


def python(code, cwd=None, **environment):
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.split()


def tracked_files():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    run = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    )
    names = [name for name in run.stdout.split("\0") if name]
    assert "setup.cfg" in names
    return [ROOT / name for name in names if (ROOT / name).is_file()]


# Metadata


def test_the_version_stands_in_one_place():
    version = keras_vq.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert setup_cfg()["metadata"]["version"].startswith("attr:")
    assert importlib.metadata.version("keras-vq") == version
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in citation


def test_requirements():
    assert setup_cfg()["options"]["python_requires"] == ">=3.11"
    assert lines("options", "install_requires") == [
        "keras>=3.15.1,<4",
        "h5py",
        "numpy",
    ]
    extras = set(setup_cfg()["options.extras_require"])
    assert extras == {
        *("cpu", "gpu", "hub", "datasets", "cv", "tensorboard", "export"),
        *("docs", "jax", "test", "bench"),
    }
    provided = importlib.metadata.metadata("keras-vq").get_all("Provides-Extra")
    assert set(provided) == extras


def test_every_package_is_listed():
    found = set()
    for folder, package in PACKAGES.items():
        for init in (ROOT / folder).rglob("__init__.py"):
            inner = init.parent.relative_to(ROOT / folder).parts
            found.add(".".join((package, *inner)))
    assert found == set(lines("options", "packages"))


def test_workflow_tests_every_supported_python():
    workflow = (ROOT / ".github/workflows/tests.yml").read_text("utf-8")
    tested = re.search(r"python: \[(.*)\]", workflow)[1]
    named = re.findall(
        r"Python :: (3\.\d+)", setup_cfg()["metadata"]["classifiers"]
    )
    assert re.findall(r"3\.\d+", tested) == named
    assert "make test" in workflow and "make test-jax" in workflow


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel of a copy: building leaves files where it is done."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in PACKAGES:
        shutil.copytree(
            ROOT / name,
            source / name,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet"]
    command += ["--no-build-isolation", "--disable-pip-version-check"]
    run = subprocess.run(
        [*command, "--wheel-dir", folder, source],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    (path,) = folder.glob("*.whl")
    return path


SAMPLES = ("samples/README.md", "samples/samples.png")
# What a bundled preset's folder holds besides its weights, figures and card.
BUNDLED = {
    "vqvae_cifar": SAMPLES,
    "vqvae2_tiny_imagenet": ("comparison.png",),
    "vqgan_tiny_imagenet": (
        *SAMPLES,
        "comparison.png",
        "preset/discriminator.weights.h5",
    ),
}


def test_the_wheel_holds_everything_and_no_more(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.split("/")[0] for name in names}
    assert tops == {"keras_vq", f"keras_vq-{keras_vq.__version__}.dist-info"}
    expected = {"keras_vq/py.typed", "keras_vq/presets/registry.json"}
    for folder, package in PACKAGES.items():
        for file in (ROOT / folder).rglob("*.py"):
            inner = file.relative_to(ROOT / folder).as_posix()
            expected.add(f"{package.replace('.', '/')}/{inner}")
    applications = "keras_vq/applications"
    expected |= {
        f"{applications}/{name}/{file}"
        for name, extras in BUNDLED.items()
        for file in (
            "README.md",
            "results.json",
            "preset/config.json",
            "preset/metadata.json",
            "preset/model.weights.h5",
            *extras,
        )
    }
    expected |= {
        f"{applications}/vqgan_imagenet/README.md",
        f"{applications}/vqvae2_ffhq/README.md",
        f"{applications}/vqvae2_imagenet/README.md",
    }
    assert not expected - names
    others = {name for name in names - expected if "dist-info" not in name}
    assert not {name for name in others if "/preset/" not in name}


def test_the_wheel_works_alone(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        "import keras_vq, keras_vq.training.train\n"
        "from keras_vq.applications.vqvae_cifar import recipe\n"
        "model = keras_vq.models.VQVAE.from_preset('vqvae_cifar')\n"
        "print(keras_vq.__file__, recipe.__file__, model.count_params())\n"
    )
    *files, parameters = python(code, tmp_path, PYTHONPATH=str(tmp_path))
    for file in files:
        assert pathlib.Path(file).is_relative_to(tmp_path)
    assert int(parameters) > 100_000


def test_entry_point():
    (script,) = importlib.metadata.entry_points(
        group="console_scripts", name="keras-vq"
    )
    assert script.value == "keras_vq.cli:main"
    assert callable(script.load())


# Imports


def test_import_brings_nothing_that_keras_has_not_brought():
    code = (
        "import sys, keras; before = set(sys.modules); import keras_vq\n"
        "new = {n.split('.')[0] for n in set(sys.modules) - before}\n"
        "print(*sorted(new - set(sys.stdlib_module_names)))\n"
    )
    assert python(code) == ["keras_vq"]


def test_heavy_modules_are_imported_late():
    # TensorFlow is loaded anyway where Keras runs on it; the source tells
    # what happens with another backend.
    # Each engine is imported when its first step or batch is made.
    tensorflow = (
        "tensorflow",
        "tensorflow_adam",
        "tensorflow_adversarial",
        "tensorflow_gate",
    )
    engines = {
        "tensorflow": (*tensorflow, "replicas"),
        "jax": ("jax", "jax_adversarial", "jax_values"),
    }
    allowed = {
        pathlib.Path(f"keras_vq/trainers/{name}.py"): {engine}
        for engine, names in engines.items()
        for name in names
    }
    allowed[pathlib.Path("keras_vq/data/grain_engine.py")] = {"grain"}
    files = sorted((ROOT / "keras_vq").rglob("*.py"))
    assert len(files) > 30
    for file in files:
        imported = set()
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
        name = file.relative_to(ROOT)
        assert not (imported & HEAVY) - allowed.get(name, set()), name


# Files


def test_no_two_files_of_tests_have_the_same_name():
    """Of two in one run, pytest would not collect the second."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) > 100
    assert sorted(names) == sorted(set(names))


def test_no_paths_of_a_machine_in_the_tree():
    pattern = re.compile(rb"(?:^|[^a-z.])/(?:work|root|home|farm)/", re.M)
    for file in tracked_files():
        found = pattern.search(file.read_bytes())
        assert not found or file.suffix in (".h5", ".png"), (file, found)


def test_size_of_what_is_bundled():
    presets = list((ROOT / "applications").glob("*/preset"))
    assert presets
    for preset in presets:
        size = sum(file.stat().st_size for file in preset.iterdir())
        assert size <= 12 * 2**20, preset
    for file in tracked_files():
        if "preset" not in file.parts:
            assert file.stat().st_size <= 2**20, file


def test_api_reference_names_everything_public():
    pages = ROOT.joinpath("docs", "api").glob("*.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    documented = set(re.findall(r"^::: (\S+)$", text, re.MULTILINE))
    for name in ("callbacks", "data", "losses", "metrics", "models", "presets"):
        module = getattr(keras_vq, name)
        for public in _exports(module):
            assert f"keras_vq.{name}.{public}" in documented
    for name in documented:
        assert callable(pkgutil.resolve_name(name)), name


def _exports(module):
    tree = ast.parse(pathlib.Path(module.__file__).read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


@pytest.mark.parametrize(
    ("printed", "status", "expected"),
    [
        ("== 12 passed, 3 skipped in 4.00s ==", 0, 0),
        ("== 3 skipped in 1.00s ==", 0, 1),
        ("", 0, 1),
        ("== 1 failed, 12 passed in 4.00s ==", 2, 2),
    ],
)
def test_continuous_integration_fails_when_it_should(
    tmp_path, printed, status, expected
):
    (tmp_path / ".ci").mkdir()
    script = shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    assert os.access(script, os.X_OK)
    programs = tmp_path / "bin"
    programs.mkdir()
    make = programs / "make"
    make.write_text(f"#!/bin/sh\necho '{printed}'\nexit {status}\n")
    make.chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    run = subprocess.run(
        ["bash", script],
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert run.returncode == expected
    assert printed in run.stdout
