"""Process that runs one model in one framework on an accelerator.

`benchmarks.accelerator` starts it. As `benchmarks.step_worker` it reads one
JSON object a line and answers on its output. `peak_mb` is the most memory that
was held so far: on the device, or on a processor by the process.

    {"name": "step", "steps": 9} -> {"seconds": 1.2, "values": {...},
                                     "peak_mb": 7123.4}

`probe` instead of a framework's name and the request says which device there
is:

    python -m benchmarks.accelerator_worker probe '{"framework": "torch", ...}'
"""

import itertools
import json
import os
import pathlib
import resource
import sys
import time

import numpy as np

from benchmarks import accelerator_material, timing


class _Tasks:
    """Functions by name, which take a number of steps.

    Each returns what must be waited for and a function that gives the values
    of the last step, which is not timed.
    """

    def __init__(self, request):
        self.request = request
        self.folder = pathlib.Path(request["folder"])

    def load(self, name) -> list:
        with np.load(self.folder / f"{name}.npz") as file:
            return [file[key] for key in file.files]

    def matmul_operands(self) -> list:
        size = self.request["matmul"]
        rng = np.random.default_rng(0)
        return [rng.normal(size=(size, size)).astype("float32") for _ in "ab"]


class _KerasTasks(_Tasks):
    def __init__(self, request):
        super().__init__(request)
        import jax

        self.jax = jax
        # Without it the products of float32 are those of TensorFloat-32 where
        # the device has them.
        if request["dtype"] == "float32":
            jax.config.update("jax_default_matmul_precision", "highest")
        policy = "mixed_bfloat16" if self.bfloat16 else "float32"
        self.model = accelerator_material.make_model(request, policy)
        self.model.set_weights(self.load("keras"))
        self.images = jax.device_put(list(self.load("images")[0]))
        self.batches = itertools.cycle(self.images)
        codes = jax.device_put(self.load("codes"))
        self.codes = codes if len(codes) > 1 else codes[0]
        self.operands = None

    @property
    def bfloat16(self):
        return self.request["dtype"] == "bfloat16"

    def device(self):
        return self.jax.devices()[0].device_kind

    def peak(self):
        return self.jax.devices()[0].memory_stats()["peak_bytes_in_use"]

    def wait(self, values):
        self.jax.block_until_ready(values)

    def prepare(self, name):
        """What comes before a measurement and is no part of it."""
        if name == "matmul" and self.operands is None:
            kind = "bfloat16" if self.bfloat16 else "float32"
            self.operands = [
                self.jax.device_put(a.astype(kind))
                for a in self.matmul_operands()
            ]
            self.product = self.jax.jit(lambda a, b: a @ b)
        if name == "step":
            # The optimizer's memory is not there before it is needed.
            if not self.model.compiled:
                self._compile()
            self.model.reset_metrics()
            self.state = self.model._get_jax_state(
                trainable_variables=True,
                non_trainable_variables=True,
                optimizer_variables=True,
                metrics_variables=True,
                # As `fit` does.
                purge_model_variables=True,
            )

    def _compile(self):
        import keras

        model, adam = self.model, keras.optimizers.Adam
        if self.request["model"] == "vqgan_f16":
            from benchmarks.vqgan_material import LEARNING_RATE
            from keras_vq.trainers.phases import enter_phase

            rates = {"beta_1": 0.5, "beta_2": 0.9}
            model.compile(*[adam(LEARNING_RATE, **rates) for _ in range(2)])
            model._open_files()
            enter_phase(model, 0)
        else:
            model.compile(adam(1e-3))
        model.make_train_function()

    def step(self, count):
        """The function that `fit` calls."""
        for _ in range(count):
            batches = map(lambda x: (x,), self.batches)
            logs, self.state = self.model.train_function(self.state, batches)
        return (logs, self.state), lambda: self._terms(logs)

    def _terms(self, logs):
        # The variables have the values again, as at the end of `fit`.
        self.model.jax_state_sync()
        self.state = None
        return {name: float(logs[name]) for name in self.request["terms"]}

    def encode(self, count):
        for _ in range(count):
            codes = self.model.encode(next(self.batches))
        return codes, lambda: _some_codes(codes)

    def decode(self, count):
        for _ in range(count):
            images = self.model.decode(self.codes)
        return images, lambda: _some_pixels(images.astype("float32"))

    def matmul(self, count):
        for _ in range(count):
            product = self.product(*self.operands)
        return product, lambda: {}


class _TorchTasks(_Tasks):
    def __init__(self, request):
        super().__init__(request)
        import torch

        from benchmarks.torch_running import Running

        self.torch = torch
        reduced = request["dtype"] != "float32"
        torch.backends.cuda.matmul.allow_tf32 = reduced
        torch.backends.cudnn.allow_tf32 = reduced
        torch.backends.cudnn.benchmark = True
        self.on = "cuda" if request["device"] == "gpu" else "cpu"
        if self.on == "cpu":
            torch.set_num_threads(2)
        running = Running(
            memory_format="channels_last",
            compiled=True,
            device=self.on,
            bfloat16=request["dtype"] == "bfloat16",
            mode=request["compile_mode"],
        )
        self.made = accelerator_material.make_torch(request, running)
        self.batches = itertools.cycle(
            [self.made.batch(batch) for batch in self.load("images")[0]]
        )
        codes = [
            torch.from_numpy(level).to(self.on) for level in self.load("codes")
        ]
        if request["model"] == "vqgan_f16":
            (codes,) = codes
        self.codes, self.operands = codes, None

    def device(self):
        if self.on == "cpu":
            return "cpu"
        return self.torch.cuda.get_device_name()

    def peak(self):
        return self.torch.cuda.max_memory_allocated()

    def wait(self, values):
        if self.on == "cuda":
            self.torch.cuda.synchronize()

    def prepare(self, name):
        """What comes before a measurement and is no part of it."""
        if name == "matmul" and self.operands is None:
            kind = self.torch.float32
            if self.request["dtype"] == "bfloat16":
                kind = self.torch.bfloat16
            self.operands = [
                self.torch.from_numpy(a).to(self.on, kind)
                for a in self.matmul_operands()
            ]

    def step(self, count):
        for _ in range(count):
            values = self.made(next(self.batches))
        terms = self.request["terms"]
        return values, lambda: {name: float(values[name]) for name in terms}

    def encode(self, count):
        for _ in range(count):
            codes = self.made.encode(next(self.batches))
        return codes, lambda: _some_codes(_on_host(codes))

    def decode(self, count):
        for _ in range(count):
            images = self.made.decode(self.codes)

        def pixels():
            return _some_pixels(images.float().permute(0, 2, 3, 1).cpu())

        return images, pixels

    def matmul(self, count):
        with self.torch.inference_mode():
            for _ in range(count):
                product = self.operands[0] @ self.operands[1]
        return product, lambda: {}


def _on_host(codes):
    if isinstance(codes, list):
        return [level.cpu() for level in codes]
    return codes.cpu()


def _some_codes(codes) -> dict:
    """Those of the first image of each level."""
    levels = codes if isinstance(codes, list) else [codes]
    found = [np.asarray(level)[0].ravel().tolist() for level in levels]
    return {"codes": sum(found, [])}


def _some_pixels(images) -> dict:
    """Every so many of the first image's, some 1000 numbers."""
    pixels = np.asarray(images)[0].ravel()
    return {"pixels": pixels[:: len(pixels) // 1000 + 1].tolist()}


_TASKS = {"keras": _KerasTasks, "torch": _TorchTasks}


def _probe(framework: str, device: str):
    """Prints the device's name, or ends with a sentence on stderr."""
    if framework == "torch":
        import torch

        if device == "cpu":
            name = "cpu"
        elif torch.cuda.is_available():
            name = torch.cuda.get_device_name()
        else:
            sys.exit(f"PyTorch {torch.__version__} finds no GPU.")
    else:
        import jax

        # It says at length what it tried.
        try:
            name = jax.devices(device)[0].device_kind
        except RuntimeError:
            sys.exit(f"JAX {jax.__version__} finds no GPU.")
    print(name)


def main():
    """Makes the tasks of `argv[1]` and serves commands until the end."""
    request = json.loads(sys.argv[2])
    if sys.argv[1] == "probe":
        _probe(**request)
        return
    # Libraries print; the answers have the real output for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    if request["device"] == "cpu":
        timing.use_cores(2)
    tasks = _TASKS[sys.argv[1]](request)
    print(json.dumps({"device": tasks.device()}), file=answers)
    for line in sys.stdin:
        command = json.loads(line)
        tasks.prepare(command["name"])
        start = time.perf_counter()
        waited, values = getattr(tasks, command["name"])(command["steps"])
        tasks.wait(waited)
        seconds = time.perf_counter() - start
        del waited
        if request["device"] == "gpu":
            peak = tasks.peak() / 1e6
        else:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        answer = {"seconds": seconds, "values": values(), "peak_mb": peak}
        print(json.dumps(answer), file=answers)


if __name__ == "__main__":
    main()
