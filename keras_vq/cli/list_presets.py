"""`keras-vq list`: the presets that can be loaded by name."""

import argparse
import json

from keras_vq.cli.environment import load_package

EPILOG = """\
examples:
  keras-vq list
  keras-vq list --json        for programs: name, class, parameters, ...
  keras-vq info vqvae_cifar   everything about one of them
"""


def add_parser(commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "list",
        help="list the presets",
        description="Lists the presets: trained models that every command, "
        "and from_preset() in Python, takes by name.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    load_package()
    from keras_vq import presets
    from keras_vq.presets.registry import unpublished_recipes

    entries = [presets.preset_info(name) for name in presets.list_presets()]
    if arguments.json:
        print(json.dumps(entries, indent=2))
        return 0
    if not entries:
        print(
            "No presets are installed. Folders written by "
            "model.save_to_preset() can be used by their path."
        )
        return 0
    # No licence: it may be sentences long, and `info` has it.
    rows = [("NAME", "MODEL", "PARAMETERS", "DESCRIPTION")]
    rows += [_row(entry) for entry in entries]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [c.ljust(w) for c, w in zip(row, widths, strict=True)]
        print("  ".join(cells).rstrip())
    unpublished = unpublished_recipes()
    if unpublished:
        print(
            f"\nRecipes without weights yet: {', '.join(unpublished)}. "
            "'keras-vq train NAME' makes them."
        )
    return 0


def _row(entry: dict) -> tuple[str, ...]:
    state = entry["metadata"].get("state")
    return (
        entry["name"],
        entry["class_name"].split(">")[-1],
        f"{entry['parameters']:,}",
        (entry["description"] or "-") + (f" [{state}]" if state else ""),
    )
