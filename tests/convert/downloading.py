"""A process that downloads a file, and can be killed at it.

    python downloading.py URL SHA256 SIZE PATH

It prints a line once it begins. The package itself is not imported, which
would take seconds of Keras for each process.
"""

import pathlib
import subprocess
import sys
import types

PACKAGE = pathlib.Path(__file__).parents[2] / "keras_vq"


def start(file, path):
    """Starts the download of a `PublishedFile`; returns the process."""
    words = [file.url, file.sha256, str(file.size), str(path)]
    return subprocess.Popen(
        [sys.executable, __file__, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main(url, sha256, size, path):
    package = types.ModuleType("keras_vq")
    package.__path__ = [str(PACKAGE)]
    sys.modules["keras_vq"] = package
    from keras_vq.convert.download import PublishedFile

    assert "keras" not in sys.modules
    print("begins", flush=True)
    PublishedFile("weights", url, sha256, int(size)).download(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
