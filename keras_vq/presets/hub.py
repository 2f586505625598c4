"""Presets from the Hugging Face Hub: "hf://user/repository[@revision]".

Weights of other programs are found there too; see `docs/convert.md`.
"""

import dataclasses
import pathlib
import posixpath
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
    read_json,
    read_manifest,
)
from keras_vq.presets.parts import part_file, part_names

HUB_PREFIX = "hf://"

# One short question decides whether the hub is there: its client would try
# again for half a minute and then report a missing file.
_PROBE_SECONDS = 5.0
_LIST_SECONDS = 15.0
_OPENER = urllib.request.build_opener()

_ADDRESS = re.compile(
    r"hf://([\w.-]+/[\w.-]+?)((?:/[\w.-]+?)*)(?:@([\w./-]+))?"
)
_COMMIT = re.compile("[0-9a-f]{40}")
_FORM = '"hf://user/repository[/folder or file][@revision]"'
_SHOWN = 12


@dataclasses.dataclass(frozen=True)
class Address:
    """Something on the Hub.

    Attributes:
        repository: "user/repository".
        path: A folder or file in it, "" for the whole.
        revision: A commit, tag or branch, None for the present one.
    """

    repository: str
    path: str = ""
    revision: str | None = None

    @property
    def is_file(self) -> bool:
        """Whether it is one file of weights."""
        from keras_vq.convert.repository import is_weight_file

        return is_weight_file(self.path)

    @property
    def is_pinned(self) -> bool:
        """Whether it means the same for ever."""
        return bool(self.revision and _COMMIT.fullmatch(self.revision))

    def __str__(self) -> str:
        path = f"/{self.path}" if self.path else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{HUB_PREFIX}{self.repository}{path}{revision}"


class _NoSuchFileError(UnknownPresetError):
    """The repository is there, but not this file."""


def parse_address(address: str) -> Address:
    """Take "hf://user/repository/folder@revision" apart."""
    match = _ADDRESS.fullmatch(address)
    if match is None or {".", ".."} & set(match[2].split("/")):
        raise PresetError(
            'Expected "hf://user/repository" or '
            '"hf://user/repository@revision" (a commit, tag or branch), or '
            f"with a folder or file: {_FORM}. Received: {address!r}."
        )
    return Address(match[1], match[2][1:], match[3])


def fetch(
    address: str, load_weights: bool = True, load_parts: bool = True
) -> pathlib.Path:
    """The local path of what is on the Hub, downloaded if need be.

    That is a preset of this package or weights of another program: those of
    a directory of diffusers, of Flax, or the only file of weights.
    What is pinned to a commit and in the cache is read without any
    connection. Environment variables of huggingface_hub (HF_HOME, HF_TOKEN,
    HF_ENDPOINT, HF_HUB_OFFLINE) are honoured.

    Args:
        address: "hf://user/repository", optionally with a folder or a file
            in it, and with "@revision".
        load_weights: Whether the weight file of a preset is needed.
        load_parts: Whether those of the preset's optional parts are.

    Returns:
        The directory, or the file of weights, in huggingface_hub's cache.

    Raises:
        PresetUnavailableError: If the client is not installed, or the Hub
            cannot be reached and the preset is not in the cache.
        UnknownPresetError: If the repository has neither, or several files of
            weights of which none is named.
    """
    where = parse_address(address)
    _, constants = _import_client()
    names = [CONFIG_FILE]
    if load_weights:
        names.append(WEIGHTS_FILE)
    offline = constants.HF_HUB_OFFLINE
    if not (offline or where.is_pinned) and _answers(constants.ENDPOINT):
        return _download(where, names, load_parts)
    # A commit never changes, so that its files need no connection.
    cached = _from_cache(where, names, load_parts)
    if cached is not None:
        return cached
    if where.is_pinned and not offline and _answers(constants.ENDPOINT):
        return _download(where, names, load_parts)
    reason = (
        "HF_HUB_OFFLINE is set"
        if offline
        else f"{constants.ENDPOINT} does not answer"
    )
    needed = (
        where.path
        if where.is_file
        else f"{', '.join([METADATA_FILE, *names])} and what else the former "
        "names, or the weights of another program"
    )
    raise PresetUnavailableError(
        f"{address} is not in the cache ({constants.HF_HUB_CACHE}), and "
        f"{reason}. Needed: {needed}. Connect once, or copy these "
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


def _from_cache(where, names, load_parts) -> pathlib.Path | None:
    client, constants = _import_client()

    def find(name):
        path = client.try_to_load_from_cache(
            where.repository,
            name,
            cache_dir=constants.HF_HUB_CACHE,
            revision=where.revision,
        )
        return pathlib.Path(path) if isinstance(path, str) else None

    if where.is_file:
        return find(where.path)
    metadata = find(posixpath.join(where.path, METADATA_FILE))
    if metadata is None:
        return _published_in_cache(where, find)
    directory = metadata.parent
    names = _with_parts(names, directory, load_parts)
    found = {find(posixpath.join(where.path, name)) for name in names}
    return directory if found == {directory / name for name in names} else None


def _published_in_cache(where, find) -> pathlib.Path | None:
    """Weights of another program among what was fetched of a repository."""
    from keras_vq.convert.repository import choose_files

    _, constants = _import_client()
    # As the client's documentation has it.
    folder = "models--" + where.repository.replace("/", "--")
    root = pathlib.Path(constants.HF_HUB_CACHE, folder)
    commit = where.revision or "main"
    try:
        if not where.is_pinned:
            commit = (root / "refs" / commit).read_text().strip()
        snapshot = root / "snapshots" / commit
        names = [
            posixpath.join(where.path, entry.name)
            for entry in (snapshot / where.path).iterdir()
        ]
    except OSError:
        return None
    return _chosen_path([find(n) for n in choose_files(names, where.path)])


def _chosen_path(paths) -> pathlib.Path | None:
    """The directory of diffusers' two files, else the file itself."""
    if not paths or None in paths:
        return None
    return paths[0].parent if len(paths) > 1 else paths[0]


def _answers(endpoint: str) -> bool:
    request = urllib.request.Request(endpoint, method="HEAD")
    try:
        _OPENER.open(request, timeout=_PROBE_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # An answer, if not the one to this question.
    except OSError:
        return False
    return True


def _download(where, names, load_parts) -> pathlib.Path:
    if where.is_file:
        return _get(where, where.path, where.revision)
    metadata_name = posixpath.join(where.path, METADATA_FILE)
    try:
        metadata = _get(where, metadata_name, where.revision)
    except _NoSuchFileError as error:
        return _download_published(where, error)
    directory = metadata.parent
    # All files from one commit, even if somebody pushes meanwhile.
    depth = len(pathlib.PurePosixPath(where.path).parts)
    commit = metadata.parents[depth].name
    for name in _with_parts(names, directory, load_parts):
        _get(where, posixpath.join(where.path, name), commit)
    return directory


def _download_published(where, error) -> pathlib.Path:
    """Weights of another program in a repository that has no preset."""
    from keras_vq.convert.repository import choose_files

    names, commit = _list(where)
    chosen = choose_files(names, where.path)
    if not chosen:
        raise UnknownPresetError(_not_chosen(where, names, error)) from error
    paths = []
    for name in chosen:
        paths.append(_get(where, name, commit))
        if paths[-1].name == CONFIG_FILE:
            _check_diffusers(where, paths[-1])
    return _chosen_path(paths)


def _not_chosen(where, names, error) -> str:
    from keras_vq.convert.repository import candidates

    found = [
        str(dataclasses.replace(where, path=name)) for name in candidates(names)
    ]
    more = f" and {len(found) - _SHOWN} more" * (len(found) > _SHOWN)
    received = "none"
    if found:
        received = f"others, or several. Name one: {found[:_SHOWN]}{more}"
    folder = f" in the folder {where.path}" if where.path else ""
    return (
        f"{error} Nor are there weights of another program{folder}. Expected: "
        "a VQModel of diffusers, flax_model.msgpack, or one file of weights. "
        f"Received: {received}."
    )


def _check_diffusers(where, path) -> None:
    """Before gigabytes of something else come."""
    kind = read_json(path).get("_class_name")
    if kind != "VQModel":
        raise UnknownPresetError(
            f"Expected a VQModel of diffusers at {where}. Received: "
            f"{kind!r:.60}."
        )


def _list(where) -> tuple[list[str], str]:
    """All files of a repository, and the commit that has them."""
    client, constants = _import_client()
    try:
        info = client.HfApi(endpoint=constants.ENDPOINT).model_info(
            where.repository, revision=where.revision, timeout=_LIST_SECONDS
        )
    except Exception as error:
        raise _explained(error, where, "its list of files") from error
    return [file.rfilename for file in info.siblings or []], info.sha


def _get(where, name, revision) -> pathlib.Path:
    client, constants = _import_client()
    try:
        path = client.hf_hub_download(
            where.repository,
            name,
            revision=revision,
            cache_dir=constants.HF_HUB_CACHE,
        )
    except Exception as error:
        raise _explained(error, where, name) from error
    return pathlib.Path(path)


def _explained(error: Exception, address: Address, name: str) -> PresetError:
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
            f"There is no repository {str(address)!r} on the Hub, or it is "
            "private and HF_TOKEN is not set."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return UnknownPresetError(
            f"The repository has no such revision. Received: {str(address)!r}."
        )
    if isinstance(error, errors.EntryNotFoundError):
        if address.is_file:
            return _NoSuchFileError(
                f"{address.repository} has no file {name}. Received: "
                f"{str(address)!r}."
            )
        return _NoSuchFileError(
            f"{address} is no preset of keras_vq: it has no {name}. "
            "Expected a repository made of the files that "
            "`model.save_to_preset(directory)` writes."
        )
    return PresetUnavailableError(
        f"The download of {name} of {address} failed: {error}"
    )
