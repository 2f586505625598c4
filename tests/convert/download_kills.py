"""Downloads that are killed at random moments, and what they leave."""

import contextlib
import hashlib
import random
import subprocess

from keras_vq.convert.download import PublishedFile
from tests.convert import downloading
from tests.convert.file_server import serve

BODY = random.Random(0).randbytes(2**19)


def killed_downloads(folder, kills, seed=0):
    """Kills a download again and again, then lets it come to its end.

    Returns:
        How often the file was absent or good after a kill, how often part of
        it was there, and the first byte of the last answer of the server.
    """
    moments = random.Random(seed)
    clean = begun = 0
    with serve(BODY) as server:
        file = PublishedFile(
            "weights",
            f"{server.address}/slow/weights",
            hashlib.sha256(BODY).hexdigest(),
            len(BODY),
        )
        for number in range(kills):
            # A new file for every five, so that most are in its middle.
            path = folder / str(number // 5) / "weights"
            process = downloading.start(file, path)
            process.stdout.readline()
            # The whole takes 0.64 s or more.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0, 0.2))
            process.kill()
            process.communicate()
            clean += not path.exists() or path.read_bytes() == BODY
            begun += any(part.stat().st_size for part in parts(path))
        process = downloading.start(file, path)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert path.read_bytes() == BODY and not parts(path)
        return clean, begun, server.firsts[-1]


def parts(path):
    """The incomplete files beside it."""
    return [p for p in path.parent.glob(".*.part")]
