"""The program `keras-vq`: reads the command line and runs one command."""

import argparse
import os
import sys
import traceback
from collections.abc import Sequence

from keras_vq.cli import (
    convert,
    decode,
    encode,
    environment,
    info,
    list_presets,
    reconstruct,
    train,
)
from keras_vq.cli.errors import FAILURE, CommandError, one_line
from keras_vq.cli.options import Parser
from keras_vq.version import __version__

COMMANDS = (
    list_presets,
    info,
    reconstruct,
    encode,
    decode,
    train,
    convert,
)

DESCRIPTION = """\
Vector-quantized image models on the command line.

A preset is a trained model with a name. It turns an image into a small grid of
whole numbers (codes) and turns codes back into an image."""

EPILOG = """\
examples:
  keras-vq list                              what is there
  keras-vq info vqvae_cifar                  what one preset can do
  keras-vq reconstruct photo.jpg seen.png    an image as the model sees it
  keras-vq encode photos/ codes.npz          a folder of images to codes
  keras-vq decode codes.npz restored/        and back to images
  keras-vq train vqvae_cifar --data-dir DIR  train a preset anew
  keras-vq convert last.ckpt my_vqgan        weights that others published

Every command explains itself: keras-vq encode --help
Errors are one line; --debug (or KERAS_VQ_DEBUG=1) shows where they come from.
"""


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of `keras-vq` with all its commands."""
    parser = Parser(
        prog="keras-vq",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"keras-vq {__version__}"
    )
    parser.add_argument(
        "--debug",
        action="store_true",
        help="show tracebacks and the logs of TensorFlow",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands", required=True
    )
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `keras-vq` and returns its exit status.

    Args:
        argv: the words after `keras-vq`; those of the process by default.

    Returns:
        0 when all went well, 2 for a command line that makes no sense, 1 for
        any other error, 130 when interrupted from the keyboard.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    before = os.environ.get(environment.DEBUG_VARIABLE)
    try:
        words, passed_on = train.split_words(words)
        arguments = build_parser().parse_args(words)
        arguments.passed_on = passed_on
        if arguments.debug:
            os.environ[environment.DEBUG_VARIABLE] = "1"
        environment.prepare_tensorflow()
        return arguments.run(arguments) or 0
    except SystemExit as stop:  # --help, --version, or a recipe's own parser.
        return _exit_status(stop)
    except KeyboardInterrupt:
        print("keras-vq: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `keras-vq list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILURE
    except Exception as error:
        if environment.debugging():
            traceback.print_exc()
        print(f"keras-vq: error: {one_line(error)}", file=sys.stderr)
        return error.code if isinstance(error, CommandError) else FAILURE
    finally:
        _restore(before)


def _exit_status(stop: SystemExit) -> int:
    if stop.code is None or isinstance(stop.code, int):
        return stop.code or 0
    print(f"keras-vq: error: {stop.code}", file=sys.stderr)
    return FAILURE


def _restore(before: str | None) -> None:
    # `main` may be called from a longer-lived process, such as a notebook.
    if before is None:
        os.environ.pop(environment.DEBUG_VARIABLE, None)
    else:
        os.environ[environment.DEBUG_VARIABLE] = before
