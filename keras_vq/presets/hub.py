"""Presets from the Hugging Face Hub: "hf://user/repository[@revision]"."""

import pathlib
import re
import urllib.error
import urllib.request

from keras_vq.presets.errors import (
    PresetError,
    PresetUnavailableError,
    UnknownPresetError,
)
from keras_vq.presets.manifest import (
    CONFIG_FILE,
    METADATA_FILE,
    WEIGHTS_FILE,
    read_manifest,
)
from keras_vq.presets.parts import part_file, part_names

HUB_PREFIX = "hf://"

# One short question decides whether the hub is there: its client would try
# again for half a minute and then report a missing file.
_PROBE_SECONDS = 5.0
_OPENER = urllib.request.build_opener()

_ADDRESS = re.compile(r"hf://([\w.-]+/[\w.-]+?)(?:@([\w./-]+))?")
_COMMIT = re.compile("[0-9a-f]{40}")


def parse_address(address: str) -> tuple[str, str | None]:
    """Split "hf://user/repository@revision" into repository and revision."""
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise PresetError(
            'Expected "hf://user/repository" or '
            '"hf://user/repository@revision" (a commit, tag or branch). '
            f"Received: {address!r}."
        )
    return match[1], match[2]


def fetch(
    address: str, load_weights: bool = True, load_parts: bool = True
) -> pathlib.Path:
    """The local directory of a preset on the Hub, downloaded if need be.

    A preset pinned to a commit that is in the cache is read without any
    connection. Environment variables of huggingface_hub (HF_HOME, HF_TOKEN,
    HF_ENDPOINT, HF_HUB_OFFLINE) are honoured.

    Args:
        address: "hf://user/repository", optionally with "@revision".
        load_weights: Whether the weight file is needed.
        load_parts: Whether those of the preset's optional parts are.

    Returns:
        The directory in huggingface_hub's cache.

    Raises:
        PresetUnavailableError: If the client is not installed, or the Hub
            cannot be reached and the preset is not in the cache.
        UnknownPresetError: If the repository has no such preset.
    """
    repository, revision = parse_address(address)
    _, constants = _import_client()
    names = [CONFIG_FILE]
    if load_weights:
        names.append(WEIGHTS_FILE)
    offline = constants.HF_HUB_OFFLINE
    pinned = revision is not None and _COMMIT.fullmatch(revision)
    if not (offline or pinned) and _answers(constants.ENDPOINT):
        return _download(address, names, load_parts)
    # A commit never changes, so that its files need no connection.
    cached = _from_cache(repository, revision, names, load_parts)
    if cached is not None:
        return cached
    if pinned and not offline and _answers(constants.ENDPOINT):
        return _download(address, names, load_parts)
    reason = (
        "HF_HUB_OFFLINE is set"
        if offline
        else f"{constants.ENDPOINT} does not answer"
    )
    raise PresetUnavailableError(
        f"{address} is not in the cache ({constants.HF_HUB_CACHE}), and "
        f"{reason}. Needed: {', '.join([METADATA_FILE, *names])} and what else "
        "the former names. Connect once, or copy these "
        "files to a directory and give its path to `from_preset`."
    )


def _import_client():
    try:
        import huggingface_hub
        from huggingface_hub import constants
    except ImportError as error:
        raise PresetUnavailableError(
            "Presets from the Hugging Face Hub need its client. Install it "
            'with `pip install "keras-vq[hub]"`, or give `from_preset` a '
            "directory."
        ) from error
    return huggingface_hub, constants


def _with_parts(names, directory, load_parts) -> list[str]:
    """The files to get, once the one that names them all is here."""
    if not load_parts:
        return names
    files = read_manifest(directory)["files"]
    return [*names, *map(part_file, part_names(files))]


def _from_cache(repository, revision, names, load_parts) -> pathlib.Path | None:
    client, constants = _import_client()

    def find(name):
        path = client.try_to_load_from_cache(
            repository,
            name,
            cache_dir=constants.HF_HUB_CACHE,
            revision=revision,
        )
        return pathlib.Path(path).parent if isinstance(path, str) else None

    directory = find(METADATA_FILE)
    if directory is None:
        return None
    names = _with_parts(names, directory, load_parts)
    found = {find(name) for name in names}
    return directory if found == {directory} else None


def _answers(endpoint: str) -> bool:
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        _OPENER.open(request, timeout=_PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # An answer, if not the one to this question.
    except OSError:
        return False
    return True


def _download(address, names, load_parts) -> pathlib.Path:
    client, constants = _import_client()
    repository, revision = parse_address(address)

    def get(name, revision):
        try:
            path = client.hf_hub_download(
                repository,
                name,
                revision=revision,
                cache_dir=constants.HF_HUB_CACHE,
            )
        except Exception as error:
            raise _explained(error, address, name) from error
        return pathlib.Path(path).parent

    directory = get(METADATA_FILE, revision)
    # All files from one commit, even if somebody pushes meanwhile.
    for name in _with_parts(names, directory, load_parts):
        get(name, directory.name)
    return directory


def _explained(error: Exception, address: str, name: str) -> PresetError:
    from huggingface_hub import errors

    # Order matters: a lost connection and a gated repository are subclasses
    # of errors that say that there is no such file or repository.
    if isinstance(error, errors.LocalEntryNotFoundError):
        return PresetUnavailableError(
            f"The download of {name} of {address} failed. Try again when "
            "the connection is back."
        )
    if isinstance(error, errors.GatedRepoError):
        return PresetUnavailableError(
            f"{address} is gated: accept its terms on the Hub and set "
            "HF_TOKEN, or run `hf auth login`."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return UnknownPresetError(
            f"There is no repository {address!r} on the Hub, or it is "
            "private and HF_TOKEN is not set."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownPresetError(
            f"The repository has no such revision. Received: {address!r}."
        )
    if isinstance(error, errors.EntryNotFoundError):
        return UnknownPresetError(
            f"{address} is no preset of keras_vq: it has no {name}. "
            "Expected a repository made of the files that "
            "`model.save_to_preset(directory)` writes."
        )
    return PresetUnavailableError(
        f"The download of {name} of {address} failed: {error}"
    )
