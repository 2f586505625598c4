"""`keras-vq train NAME`, also `python -m keras_vq.training.train NAME`."""

import argparse
import dataclasses
import os
import pathlib
import shlex
import sys

from keras_vq.cli.errors import CommandError
from keras_vq.cli.options import (
    Parser,
    natural,
    positive,
    positive_float,
    require,
)

_DESCRIPTION = """\
Trains a preset with its recipe, from data to model card.

Writes to the output directory, while it runs: checkpoints/ (all that the next
step needs), log.csv, reconstructions/; at the end: preset/ (for
`from_preset`), results.json (figures with their protocol) and README.md (the
model card).

SIGTERM and Ctrl-C finish the step and save it; the exit code is then 143 or
130. The same command with --resume goes on as if nothing had happened.
"""

_EPILOG = """\
examples:
  keras-vq train vqvae_cifar --data-dir data
  keras-vq train vqvae_cifar --data-dir data --strategy mirrored
  keras-vq train vqvae_cifar --data-dir data --steps 2000 --output-dir short
  keras-vq train vqvae_cifar --data-dir data --resume
  keras-vq train vqgan_tiny_imagenet --data-dir data --discriminator-start 0.5
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: Words of the command line after `train`.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if arguments is None else arguments
    parsed = _parser().parse_args(words)
    require(
        not (parsed.without_discriminator and parsed.baseline),
        "--baseline names the run --without-discriminator that a run with it "
        "is compared with. Leave one of the two out",
    )
    # Late, so that --help is quick.
    from keras_vq.trainers.lost_workers import WorkerLostError, end_with_error
    from keras_vq.training.recipe import load_recipe
    from keras_vq.training.run import Run, train

    if parsed.deterministic:
        from keras_vq.training.environment import make_deterministic

        make_deterministic()
    recipe = _changed(load_recipe(parsed.name, parsed.variant), parsed)
    run = Run(
        data_dir=pathlib.Path(parsed.data_dir).expanduser(),
        output_dir=pathlib.Path(
            parsed.output_dir or f"runs/{recipe.name}"
        ).expanduser(),
        strategy=parsed.strategy,
        dtype=parsed.dtype,
        seed=parsed.seed,
        resume=parsed.resume,
        stop_after=parsed.stop_after,
        save_every=parsed.save_every,
        baseline=parsed.baseline and pathlib.Path(parsed.baseline).expanduser(),
        tensorboard=parsed.tensorboard,
        jit_compile=parsed.jit_compile,
        command=_command(words),
    )
    try:
        results = train(recipe, run)
    except WorkerLostError:
        end_with_error()
        raise
    if not results:
        rest = (
            parsed.stop_after is not None and parsed.stop_after < recipe.steps
        )
        print(
            f"{recipe.name}: stopped; --resume goes on"
            if rest
            else f"{recipe.name}: done; the first worker writes the results"
        )
        return 0
    print(f"{recipe.name}: {_figures(results)}\nwritten to {run.output_dir}")
    return 0


def _changed(recipe, parsed):
    """The recipe with what the command line changes of it."""
    names = ("steps", "batch_size", "steps_per_epoch", "accumulation_steps")
    changes = {
        name: value
        for name in (*names, "discriminator_start")
        if (value := getattr(parsed, name)) is not None
    }
    if recipe.discriminator_optimizer is None and (
        parsed.without_discriminator or "discriminator_start" in changes
    ):
        raise CommandError(
            f"{recipe.name} is trained without a discriminator in any case. "
            "Leave out --without-discriminator and --discriminator-start"
        )
    if parsed.without_discriminator:
        changes["discriminator_start"] = None
    recipe = dataclasses.replace(recipe, **changes)
    if parsed.learning_rate is not None:
        recipe = recipe.with_learning_rate(parsed.learning_rate)
    return recipe


def _figures(results) -> str:
    """The figures of a run in a line."""
    from keras_vq.training.card import by_level

    figures = results["evaluation"]
    texts = [f"{figures['psnr_db']:.2f} dB PSNR"]
    if "lpips" in figures:
        texts.append(f"LPIPS {figures['lpips']:.4f}")
        texts.append(f"Fréchet distance {figures['frechet_distance']:.1f}")
    texts.append(
        f"{by_level(figures['codes_used'])} of "
        f"{by_level(figures['codebook_size'])} codes used"
    )
    texts.append(f"perplexity {by_level(figures['perplexity'], '{:.1f}')}")
    return ", ".join(texts)


def _command(words: list[str]) -> str:
    """The command as anybody could repeat it: without this machine's paths."""
    words = list(words)
    for i, word in enumerate(words[:-1]):
        if word == "--data-dir":
            words[i + 1] = "DIR"
        elif word == "--output-dir":
            words[i + 1] = "OUT"
        elif word == "--baseline":
            words[i + 1] = "BASELINE"
    return shlex.join(["keras-vq", "train", *words])


def _parser():
    parser = Parser(
        prog="keras-vq train",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="preset to train, such as vqvae_cifar")
    parser.add_argument(
        "--variant",
        help="one of the recipe's variants, which its README lists",
    )
    parser.add_argument(
        "--data-dir",
        default=os.environ.get("KERAS_VQ_DATA"),
        required="KERAS_VQ_DATA" not in os.environ,
        help="directory of the data (or set KERAS_VQ_DATA); what is looked "
        "for in it stands in the recipe's README",
    )
    parser.add_argument(
        "--output-dir", help="where to write (default: runs/NAME)"
    )
    parser.add_argument(
        "--strategy",
        choices=("one", "mirrored", "multiworker", "data-parallel"),
        default="one",
        help="one device, all GPUs of this machine (mirrored; data-parallel "
        "on JAX), or those of several hosts, listed in TF_CONFIG",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        help="training steps (default: the recipe's); exactly so many are "
        "taken",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        help="images per step over all replicas",
    )
    parser.add_argument(
        "--learning-rate",
        type=positive_float,
        help="peak of the learning rate; a discriminator's keeps its ratio",
    )
    parser.add_argument(
        "--accumulation-steps",
        type=positive,
        help="parts that a step computes its batch in: less memory",
    )
    parser.add_argument(
        "--discriminator-start",
        type=_start,
        help="steps before the discriminator takes part, or a fraction of "
        "--steps, such as 0.5",
    )
    parser.add_argument(
        "--without-discriminator",
        action="store_true",
        help="never let the discriminator take part. A copy of a run that was "
        "stopped before that goes on like this as well as with it",
    )
    parser.add_argument(
        "--baseline",
        metavar="DIRECTORY",
        help="output directory of a run to compare this one with, such as the "
        "same --without-discriminator, or another variant: its figures come "
        "beside this run's in results and model card",
    )
    parser.add_argument(
        "--steps-per-epoch",
        type=positive,
        help="steps between two validations; --steps that are no multiple of "
        "it get a smaller one, down to half of it",
    )
    parser.add_argument(
        "--dtype",
        help="dtype policy: float32, mixed_bfloat16 or mixed_float16",
    )
    parser.add_argument(
        "--seed", type=natural, default=0, help="seed of weights and data"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint in the output directory, if "
        "there is one",
    )
    parser.add_argument(
        "--stop-after",
        type=positive,
        metavar="STEPS",
        help="stop after so many steps, to be resumed later",
    )
    parser.add_argument(
        "--save-every",
        type=positive,
        default=1000,
        help="steps between two checkpoints (default: 1000)",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard logs"
    )
    parser.add_argument(
        "--jit-compile",
        action="store_true",
        help="compile with XLA (JAX always does)",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same weights, bit for bit, from the same seed on the same "
        "GPUs, at some cost in speed (CPUs need no flag)",
    )
    return parser


def _start(text: str) -> int | float:
    """A number of steps, or a fraction of them."""
    if text.isdecimal():
        return int(text)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(
            "expected a whole number of steps, or a fraction of them in "
            f"[0, 1). Received: {text}"
        )
    return value


if __name__ == "__main__":
    # The program shows what goes wrong as one line.
    from keras_vq.cli import main as program

    sys.exit(program(["train", *sys.argv[1:]]))
