"""`keras-vq train NAME ...`: passes on to the launcher of the recipes."""

import argparse
import importlib

from keras_vq.cli.environment import load_package
from keras_vq.cli.errors import CommandError

EPILOG = """\
examples:
  keras-vq train vqvae_cifar --data-dir DIR
  keras-vq train vqvae_cifar --data-dir DIR --strategy mirrored
  keras-vq train vqvae_cifar --help          the options of the training

Everything after `train` goes to the launcher, which is also there as
`python -m keras_vq.training.train`.
"""


def add_parser(commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "train",
        help="train a preset with its recipe",
        description="Trains a preset with the recipe that made it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)


def split_words(words: list[str]) -> tuple[list[str], list[str]]:
    """Separates the words of `keras-vq` from those meant for the launcher."""
    for index, word in enumerate(words):
        if word == "train":
            return words[: index + 1], words[index + 1 :]
        if not word.startswith("-"):
            break
    return words, []


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    if not {"-h", "--help"} & set(arguments.passed_on):
        load_package()
    try:
        train = importlib.import_module("keras_vq.training.train")
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("keras_vq"):
            raise
        raise CommandError(
            "the training recipes are not installed. Install the package "
            "(in a checkout: pip install -e .) and try again"
        ) from error
    return train.main(arguments.passed_on)
