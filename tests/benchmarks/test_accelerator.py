"""The parts of the accelerator's benchmark that need no accelerator."""

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import accelerator, accelerator_material, report

VQVAE = {
    **accelerator_material.SMALL_MODELS["vqvae_cifar"]["config"],
    "residual_blocks": 2,
}
VQVAE2 = accelerator_material.SMALL_MODELS["vqvae2"]["config"]
BATCH, SIZE = 2, 16
ROOT = report.PAGE.parents[1]


def _request(model, config):
    return {"model": model, "config": config}


def _sizes(config):
    names = ("hidden_units", "residual_units", "codebook_dim", "codebook_size")
    units, inner, dim, codes = (config[name] for name in names)
    stack = config["residual_blocks"] * 10 * units * inner
    return units, units // 2, dim, codes, stack


def test_operations_of_vqvae():
    pytest.importorskip("torch", reason="it counts them")
    units, half, dim, codes, stack = _sizes(VQVAE)
    # Multiplications of an image, by the positions of a side.
    wide, narrow = (SIZE // 2) ** 2, (SIZE // 4) ** 2
    first = 16 * 3 * half * wide
    encoder = first + narrow * (
        16 * half * units + 9 * units**2 + stack + units * dim
    )
    decoder = narrow * (9 * dim * units + stack + 16 * units * half)
    decoder += 16 * half * 3 * wide
    search = dim * codes * narrow
    _check_flops("vqvae_cifar", VQVAE, first, encoder, decoder, search)


def test_operations_of_vqvae2():
    pytest.importorskip("torch", reason="it counts them")
    assert VQVAE2["downsample_factors"] == (4, 2)
    assert VQVAE2["encoder_kernel_size"] == 3
    units, half, dim, codes, stack = _sizes(VQVAE2)
    wide, fine, coarse = ((SIZE // n) ** 2 for n in (2, 4, 8))
    first = 9 * 3 * half * wide
    encoder = first + fine * (9 * half * units + 9 * units**2 + stack)
    encoder += coarse * (9 * units * half + 9 * half * units + stack)
    encoder += coarse * units * dim + fine * (units + dim) * dim
    # What the coarse level tells the fine one.
    encoder += coarse * (9 * dim * units + stack + 16 * units * dim)
    decoder = coarse * 16 * dim**2 + 16 * half * 3 * wide
    decoder += fine * (9 * 2 * dim * units + stack + 16 * units * half)
    search = dim * codes * (fine + coarse)
    _check_flops("vqvae2", VQVAE2, first, encoder, decoder, search)


def _check_flops(model, config, first, encoder, decoder, search):
    found = accelerator_material.flops(_request(model, config), SIZE, BATCH)
    assert found["encode"] == 2 * BATCH * (encoder + search)
    assert found["decode"] == 2 * BATCH * decoder
    # Backward twice as many, but for the images, which are not trained; none
    # for the search.
    step = 3 * (encoder + decoder) - first + search
    assert found["step"] == 2 * BATCH * step


@pytest.mark.parametrize("factors", [(4, 2), (2, 4, 2)])
def test_peer_of_vqvae2(factors):
    """Codes, images and two steps are those of the model."""
    pytest.importorskip("torch", reason="what it is compared with")
    import keras

    from benchmarks.torch_running import Running
    from benchmarks.torch_vqvae import TrainingStep, load
    from benchmarks.torch_vqvae2 import keras_weights

    keras.utils.set_random_seed(0)
    config = {**VQVAE2, "downsample_factors": factors, "codebook_size": 8}
    request = _request("vqvae2", config)
    model = accelerator_material.make_model(request)
    shape = (2, 4, 32, 32, 3)
    batches = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
    model.adapt(batches[0])
    # Away from the means of these latents, so that a step moves the codes.
    rng = np.random.default_rng(1)
    for level in model.quantizer.levels():
        codes = keras.ops.convert_to_numpy(level.codebook)
        noise = rng.normal(0, 0.4, codes.shape) * codes.std(axis=0)
        level._restart((codes + noise).astype("float32"))
    network = accelerator_material.torch_network(request)
    to_numpy = keras.ops.convert_to_numpy
    load(network, [to_numpy(v) for v in keras_weights(model)])
    levels = model.quantizer.levels()
    codebooks = [to_numpy(level.codebook) for level in levels]
    made = TrainingStep(network, codebooks, Running("channels_last"))

    codes = made.encode(made.batch(batches[0]))
    assert len(codes) == len(factors)
    for ours, theirs in zip(model.encode(batches[0]), codes, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    images = made.decode(codes).permute(0, 2, 3, 1)
    want = model.decode([level.numpy() for level in codes])
    np.testing.assert_allclose(images, want, atol=1e-5)

    model.compile(keras.optimizers.Adam(1e-3))
    for step, batch in enumerate(batches):
        # Adam's first step is as large for small gradients, so rounding
        # counts in the second.
        tolerance = 2e-2 if step else 1e-4
        logs = model.train_on_batch(batch, return_dict=True)
        values = made(made.batch(batch))
        for name in ("loss", "reconstruction_loss", "commitment_loss"):
            want = pytest.approx(logs[name], rel=tolerance)
            assert float(values[name]) == want
        if step:
            break
        for level, codebook, old in zip(
            levels, made.codebooks, codebooks, strict=True
        ):
            moved = np.abs(to_numpy(level.codebook) - old).max()
            assert moved > 1e-4
            np.testing.assert_allclose(
                level.codebook, codebook, atol=1e-3 * moved
            )


VALUES = {
    "step": {"loss": 1.0, "commitment_loss": 0.01},
    "encode": {"codes": list(range(100))},
    "decode": {"pixels": [0.5, -0.5]},
}


def _pair(**changes):
    theirs = copy.deepcopy(VALUES)
    for task, change in changes.items():
        theirs[task].update(change)
    return dict(zip(accelerator.FRAMEWORKS, (VALUES, theirs), strict=True))


def test_values_that_part():
    check = accelerator.check_values
    check("float32", _pair())
    check("bfloat16", _pair(step={"loss": 1.05}))
    with pytest.raises(RuntimeError, match="loss is 1.0 .* 1.05 for PyTorch"):
        check("float32", _pair(step={"loss": 1.05}))
    other = _pair(step={"commitment_loss": 0.02})
    check("bfloat16", other)
    with pytest.raises(RuntimeError, match="commitment_loss is 0.01 "):
        check("float32", other)
    with pytest.raises(RuntimeError, match="loss is 1.0 .* nan for PyTorch"):
        check("bfloat16", _pair(step={"loss": float("nan")}))
    with pytest.raises(RuntimeError, match="different images"):
        check("float32", _pair(decode={"pixels": [0.5, -0.49]}))
    with pytest.raises(RuntimeError, match="different codes .* 99%"):
        check("float32", _pair(encode={"codes": [0] * 100}))


def _entry():
    peer = accelerator.PEER
    size, rate = 100, 1e9
    seconds = {
        "encode": {"keras_vq": [0.5, 0.5, 9.0], peer: [0.25] * 3},
        "decode": {"keras_vq": [0.5] * 3, peer: [1.0] * 3},
        "step": {"keras_vq": [1.0] * 3, peer: [2.0, 2.0, 0.1]},
        "matmul": {
            "keras_vq": [2 * size**3 / rate] * 3,
            peer: [4 * size**3 / rate] * 3,
        },
    }
    flops = {"encode": 1e8, "decode": 1e8, "step": 4e8}
    return accelerator.summary(seconds, flops, batch_size=8, size=size)


def test_summary():
    found, peer = _entry(), accelerator.PEER
    assert found["images_per_second"]["encode"] == {"keras_vq": 16, peer: 32}
    assert found["ratio"] == {"encode": 0.5, "decode": 2.0, "step": 2.0}
    # Of the faster of the two bare products.
    shares = found["share_of_matmul"]
    assert shares["step"] == pytest.approx({"keras_vq": 0.4, peer: 0.2})
    assert found["matmul_tflops_per_second"]["keras_vq"] == pytest.approx(1e-3)


def test_report():
    peer = accelerator.PEER
    memory = dict.fromkeys(accelerator.TASKS, {"keras_vq": 7100, peer: 8200})
    entry = {
        "model": "vqvae2",
        "dtype": "bfloat16",
        "size": 256,
        "batch_size": 8,
        "peak_mb": memory,
        "command": "python -m benchmarks.accelerator",
        "date": "2001-02-03",
        **_entry(),
    }
    results = {
        "device": "Test card",
        "matmul_size": 8192,
        "compile_mode": "default",
        "entries": [entry],
    }
    # What the JSON file gives back.
    text = report.accelerator(json.loads(json.dumps(results)))
    row = "| vqvae2, bfloat16: step | 8 (40%) | 4 (20%) | 2.00 |"
    assert row in text
    assert "On one Test card" in text
    assert "`python -m benchmarks.accelerator`, 2001-02-03" in text
    page = report.fill(report.PAGE.read_text(), "accelerator", text)
    assert row in page


def test_earlier_entries_are_kept_unless_they_are_redone():
    names = ("vqvae2", "vqgan_f16")
    old = [{"model": name, "dtype": "float32", "n": 1} for name in names]
    new = [{"model": "vqvae2", "dtype": "float32", "n": 2}]
    assert accelerator.joined(new, old) == [old[1], new[0]]
    assert accelerator.joined(new, []) == new


def test_arguments(capsys):
    options = accelerator.parse([])
    assert options.device == "gpu" and options.compile_mode == "default"
    assert options.models == ["vqvae_cifar", "vqvae2", "vqgan_f16"]
    assert options.dtypes == ["bfloat16", "float32"]
    assert options.output.name == "accelerator.json"
    options = accelerator.parse(["--small", "--models", "vqvae2"])
    assert options.device == "cpu" and options.models == ["vqvae2"]
    assert options.rounds == 2 and options.dtypes == ["float32"]
    # Its figures must not get into the docs.
    assert options.output.stem not in report.SECTIONS
    with pytest.raises(SystemExit):
        accelerator.parse(["--dtypes", "float64"])
    assert "invalid choice: 'float64'" in capsys.readouterr().err


def test_missing_package(monkeypatch):
    found = accelerator.importlib.util.find_spec
    monkeypatch.setattr(
        accelerator.importlib.util,
        "find_spec",
        lambda name: None if name in ("jax", "diffusers") else found("json"),
    )
    assert accelerator.missing_packages(["vqvae2"]) == ["jax"]
    with pytest.raises(SystemExit, match="Missing: jax, diffusers$"):
        accelerator.check_packages(["vqgan_f16"])


def test_missing_gpu(monkeypatch):
    torch = pytest.importorskip("torch", reason="it looks for one")
    from benchmarks import accelerator_worker

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="PyTorch .* finds no GPU"):
        accelerator_worker._probe("torch", "gpu")


def test_a_probe_that_fails_is_one_sentence(monkeypatch):
    def run(command, **options):
        assert options["env"]["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"
        said = "Traceback\nJAX 1.2.3 finds no GPU.\n"
        return subprocess.CompletedProcess(command, 1, "", said)

    monkeypatch.setattr(accelerator.subprocess, "run", run)
    with pytest.raises(SystemExit, match="^JAX 1.2.3 finds no GPU. `--small`"):
        accelerator.find_devices("gpu")


# As if it were not installed.
WITHOUT = "import sys; sys.modules['tensorflow'] = None; "


def test_no_module_needs_tensorflow():
    names = ["accelerator", "accelerator_worker", "accelerator_material"]
    program = "".join(f"import benchmarks.{name}; " for name in names)
    subprocess.run(
        [sys.executable, "-c", WITHOUT + program], check=True, cwd=ROOT
    )


@pytest.mark.soak
def test_everything_small(tmp_path):
    """Both frameworks agree in each model and dtype."""
    for name in ("jax", "torch", "diffusers"):
        pytest.importorskip(name, reason="the benchmark takes it")
    path = tmp_path / "results.json"
    arguments = ["--small", "--rounds", "1", "--output", str(path)]
    arguments += ["--dtypes", "bfloat16", "float32"]
    module = "benchmarks.accelerator"
    subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=True,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
    )
    entries = json.loads(path.read_text())["entries"]
    assert len(entries) == 6
    for entry in entries:
        ours, theirs = entry["first_step"].values()
        if entry["dtype"] == "float32":
            assert ours == pytest.approx(theirs, rel=1e-3)
        assert min(entry["peak_mb"]["step"].values()) > 100
        assert min(entry["gflops"].values()) > 0
