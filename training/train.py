"""`keras-vq train NAME`, also `python -m keras_vq.training.train NAME`."""

import argparse
import dataclasses
import os
import pathlib
import shlex
import sys

from keras_vq.cli.options import Parser, natural, positive, positive_float

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
    # Late, so that --help is quick.
    from keras_vq.trainers.lost_workers import WorkerLostError, end_with_error
    from keras_vq.training.recipe import load_recipe
    from keras_vq.training.run import Run, train

    if parsed.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    recipe = load_recipe(parsed.name)
    changes = {
        name: value
        for name in ("steps", "batch_size", "learning_rate", "steps_per_epoch")
        if (value := getattr(parsed, name)) is not None
    }
    recipe = dataclasses.replace(recipe, **changes)
    if recipe.warmup_steps >= recipe.steps:
        recipe = dataclasses.replace(recipe, warmup_steps=recipe.steps // 10)
    run = Run(
        data_dir=pathlib.Path(parsed.data_dir).expanduser(),
        output_dir=pathlib.Path(
            parsed.output_dir or f"runs/{recipe.name}"
        ).expanduser(),
        strategy=parsed.strategy,
        dtype=parsed.dtype,
        seed=parsed.seed,
        resume=parsed.resume,
        save_every=parsed.save_every,
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
        print(f"{recipe.name}: done; the first worker writes the results")
        return 0
    figures = results["evaluation"]
    print(
        f"{recipe.name}: {figures['psnr_db']:.2f} dB PSNR, "
        f"{figures['codes_used']} of {figures['codebook_size']} codes used, "
        f"perplexity {figures['perplexity']:.1f}\n"
        f"written to {run.output_dir}"
    )
    return 0


def _command(words: list[str]) -> str:
    """The command as anybody could repeat it: without this machine's paths."""
    words = list(words)
    for i, word in enumerate(words[:-1]):
        if word == "--data-dir":
            words[i + 1] = "DIR"
        elif word == "--output-dir":
            words[i + 1] = "OUT"
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
        choices=("one", "mirrored", "multiworker"),
        default="one",
        help="one device, all GPUs of this machine, or those of several "
        "hosts, listed in TF_CONFIG",
    )
    parser.add_argument(
        "--steps",
        type=positive,
        help="training steps (default: the recipe's)",
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        help="images per step over all replicas",
    )
    parser.add_argument(
        "--learning-rate",
        type=positive_float,
        help="peak of the learning rate",
    )
    parser.add_argument(
        "--steps-per-epoch",
        type=positive,
        help="steps between two validations",
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
        "--save-every",
        type=positive,
        default=1000,
        help="steps between two checkpoints (default: 1000)",
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="write TensorBoard logs"
    )
    parser.add_argument(
        "--jit-compile", action="store_true", help="compile with XLA"
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same weights, bit for bit, from the same seed on the same "
        "GPUs, at some cost in speed (CPUs need no flag)",
    )
    return parser


if __name__ == "__main__":
    # The program shows what goes wrong as one line.
    from keras_vq.cli import main as program

    sys.exit(program(["train", *sys.argv[1:]]))
