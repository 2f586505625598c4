"""Where the published weights of LPIPS are, and where they come from."""

import os
import pathlib

from keras_vq.convert import download
from keras_vq.convert.download import PublishedFile
from keras_vq.convert.errors import UnavailableFileError

FOLDERS_VARIABLE = "KERAS_VQ_LPIPS"

_TORCHVISION = "https://download.pytorch.org/models/"
_LPIPS = (
    "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/"
    "082bb24f84c091ea94de2867d34c4544f68e0963/lpips/weights/v0.1/"
)
_KERAS_SQUEEZENET = (
    "https://github.com/rcmalli/keras-squeezenet/raw/62b3f05/weights/"
)


def _published(folder, name, size, sha256):
    return PublishedFile(name, folder + name, sha256, size)


# By trunk, then by the argument of LPIPS.
PUBLISHED = {
    "vgg": {
        "trunk_weights": _published(
            _TORCHVISION,
            "vgg16-397923af.pth",
            553_433_881,
            "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        ),
        "linear_weights": _published(
            _LPIPS,
            "vgg.pth",
            7_289,
            "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        ),
    },
    "squeeze": {
        "trunk_weights": _published(
            _TORCHVISION,
            "squeezenet1_1-b8a52dc0.pth",
            4_958_839,
            "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        ),
        "linear_weights": _published(
            _LPIPS,
            "squeeze.pth",
            10_811,
            "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76",
        ),
    },
}
# Other weights for the same trunk, taken where a user put them, and never
# fetched: their distances are others.
_ALTERNATIVES = {
    PUBLISHED["squeeze"]["trunk_weights"].name: _published(
        _KERAS_SQUEEZENET,
        "squeezenet_weights_tf_dim_ordering_tf_kernels_notop.h5",
        3_032_184,
        "2d935d8c102ad1232484a77da8e6fbdf3ff4ab608974a0d8b6283115ffff204f",
    ),
}


def find_weights(trunk: str, argument: str) -> str:
    """The path of a published file, which is fetched if it is not here.

    Looked for in the folders that the environment variable KERAS_VQ_LPIPS
    names, separated as those of PATH are; then in Keras' cache folder, where
    it is downloaded to. What is found is compared with the published hash.

    Args:
        trunk: `"vgg"` or `"squeeze"`.
        argument: `"trunk_weights"` or `"linear_weights"`.

    Returns:
        The path.

    Raises:
        UnavailableFileError: If it is nowhere and cannot be fetched.
        DamagedFileError: If a file of that name is another one.
    """
    published = PUBLISHED[trunk][argument]
    known = [published]
    if published.name in _ALTERNATIVES:
        known.append(_ALTERNATIVES[published.name])
    places = [(folder, known) for folder in _named_folders()]
    for folder, files in [*places, (cache_folder(), [published])]:
        for file in files:
            path = folder / file.name
            if path.is_file():
                file.check(path)
                return str(path)
    path = cache_folder() / published.name
    try:
        published.download(path)
    except UnavailableFileError as error:
        raise UnavailableFileError(how_to_get(trunk, str(error))) from error
    return str(path)


def how_to_get(trunk: str, received: str) -> str:
    """The text of the error that weights are not there."""
    files = PUBLISHED[trunk].items()
    lines = "".join(f"  {a}: {f.name} from {f.url}\n" for a, f in files)
    named = [str(folder) for folder in _named_folders()]
    return (
        f"LPIPS with the trunk {trunk!r} needs two files of published weights, "
        f"which are not part of the package:\n{lines}"
        "(the second one is also inside of the PyPI package `lpips`). "
        f"Save both in {cache_folder()}, or in a folder that the environment "
        f"variable {FOLDERS_VARIABLE} names"
        + (f" (now: {os.pathsep.join(named)})" if named else "")
        + ", or give their paths to `LPIPS`. A checkpoint of "
        "taming-transformers holds both for the trunk 'vgg': give its path "
        f"twice. Received: {received}"
    )


def cache_folder() -> pathlib.Path:
    """Where the weights are downloaded to."""
    return download.cache_folder("lpips")


def _named_folders() -> list[pathlib.Path]:
    names = os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep)
    return [pathlib.Path(name).expanduser() for name in names if name]
