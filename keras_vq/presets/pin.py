"""Write a bundled preset's entry of registry.json from its files.

Run it after a preset was trained anew, and commit both together:

    python -m keras_vq.presets.pin vqvae_cifar
"""

import argparse
import dataclasses
import json
import pathlib
import sys

from keras_vq.presets.errors import PresetError
from keras_vq.presets.manifest import METADATA_FILE, fingerprint, parts_of
from keras_vq.presets.registry import (
    BUNDLED,
    REGISTRY_PATH,
    PresetEntry,
    bundled_directories,
)
from keras_vq.presets.source import open_source, verify


def pin(name: str, directory: pathlib.Path, where: str = BUNDLED) -> dict:
    """Check a preset directory and make its entry for the registry.

    Args:
        name: What `from_preset` will be given.
        directory: Its files.
        where: "bundled", or the address "hf://user/repository@commit" that
            the same files have.

    Returns:
        The entry, as it stands in registry.json under the name.
    """
    verify(directory)
    source = open_source(directory)
    manifest = source.manifest
    files = {**source.files}
    files[METADATA_FILE] = fingerprint(directory / METADATA_FILE)
    metadata = {**manifest["metadata"], "data": manifest["data"]}
    entry = PresetEntry(
        name=name,
        class_name=manifest["class"],
        description=manifest["description"],
        where=where,
        parameters=manifest["parameter_count"],
        licence=manifest["licence"],
        files=files,
        metadata=metadata,
        parts=parts_of(manifest),
    )
    fields = dataclasses.asdict(entry)
    del fields["name"], fields["alias_of"]
    return fields


def main(argv: list[str] | None = None) -> int:
    """Rewrite the entries of the named presets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="+", metavar="NAME")
    names = parser.parse_args(argv).names
    # Read afresh: the registry of this process is the one to be replaced.
    content = json.loads(REGISTRY_PATH.read_text(encoding="utf-8"))
    for name in names:
        folders = [d for d in bundled_directories(name) if d.is_dir()]
        try:
            if not folders:
                raise PresetError(f"There is no applications/{name}/preset.")
            content[name] = pin(name, folders[0])
        except PresetError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(f"{name}: pinned {folders[0]}")
    ordered = dict(sorted(content.items()))
    text = json.dumps(ordered, indent=4, ensure_ascii=False)
    REGISTRY_PATH.write_text(text + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
