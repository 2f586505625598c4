"""`keras-vq info NAME`: what one preset is, without loading its weights."""

import argparse
import json

from keras_vq.cli.environment import load_package

EPILOG = """\
examples:
  keras-vq info vqvae_cifar
  keras-vq info ./my_preset          a folder from model.save_to_preset()
  keras-vq info vqvae_cifar --json   for programs

The files' SHA-256 are those that are checked each time the preset is loaded.
Of weights that others have published, `state` says what was verified of them.
"""


def add_parser(commands) -> None:
    """Adds the command to the parser."""
    parser = commands.add_parser(
        "info",
        help="describe a preset",
        description="Describes a preset: its model and arguments, licence, "
        "data, files and what was measured.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "preset",
        metavar="NAME|DIR",
        help="a name from 'keras-vq list', or a preset's folder",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the command."""
    load_package()
    description = describe(arguments.preset)
    if arguments.json:
        print(json.dumps(description, indent=2))
    else:
        _print(description)
    return 0


def describe(preset: str) -> dict:
    """Collects what is known about a preset; its arrays are not read."""
    from keras_vq.presets.manifest import parts_of
    from keras_vq.presets.registry import registry
    from keras_vq.presets.source import open_source

    entry = registry().get(preset)
    if entry is not None and entry.is_converted:
        from keras_vq.convert.named import is_here

        if not is_here(entry):
            return _describe_elsewhere(entry)
    source = open_source(preset)
    config = source.read_config()
    manifest = source.manifest
    metadata = dict(manifest.get("metadata", {}))
    return {
        "preset": preset,
        "directory": str(source.directory),
        "class": manifest.get("class", config["registered_name"]),
        "description": manifest.get("description", ""),
        "parameters": manifest.get("parameter_count"),
        "parts": parts_of(manifest),
        "stored_dtype": manifest.get("dtype"),
        "licence": manifest.get("licence", ""),
        "data": manifest.get("data", ""),
        "keras_vq_version": manifest.get("keras_vq_version"),
        "evaluation": metadata.pop("evaluation", {}),
        "arguments": config["config"],
        "metadata": metadata,
        "files": source.files,
    }


def _describe_elsewhere(entry) -> dict:
    """What is known of published weights before they are fetched."""
    metadata = dict(entry.metadata)
    return {
        "preset": entry.name,
        "directory": "fetched at the first use",
        "where": entry.where,
        "class": entry.class_name,
        "description": entry.description,
        "parameters": entry.parameters,
        "licence": entry.licence,
        "data": metadata.pop("data", ""),
        "evaluation": metadata.pop("evaluation", {}),
        "metadata": metadata,
        "files": entry.files,
    }


def _print(description: dict) -> None:
    for key, value in description.items():
        label = key.replace("_", " ")
        if value in ("", None, {}):
            continue
        if key == "files":
            print("files:")
            for name, entry in value.items():
                facts = [f"{_plain(entry.get('size', 'unknown'))} bytes"]
                facts += [
                    f"{key} {value}"
                    for key, value in entry.items()
                    if key != "size"
                ]
                print(f"  {name}  {'  '.join(facts)}")
        elif isinstance(value, dict):
            print(f"{label}:")
            _print_tree(value, "  ")
        else:
            print(f"{label}: {_plain(value)}")


def _print_tree(tree: dict, indent: str) -> None:
    for key, value in tree.items():
        # A serialized layer: its class and arguments are what matters.
        if isinstance(value, dict) and value.get("class_name") == "DTypePolicy":
            print(f"{indent}{key}: {value['config']['name']}")
        elif isinstance(value, dict) and "class_name" in value:
            print(f"{indent}{key}: {value['class_name']}")
            value = value.get("config", {})
            _print_tree(value, indent + "  ")
        elif isinstance(value, dict):
            print(f"{indent}{key}:")
            _print_tree(value, indent + "  ")
        else:
            print(f"{indent}{key}: {_plain(value)}")


def _plain(value) -> str:
    return f"{value:,}" if type(value) is int else str(value)
