"""A published file comes whole and checked, or not at all."""

import dataclasses
import hashlib
import os
import time

import pytest

from keras_vq.convert import DamagedFileError, UnavailableFileError, download
from keras_vq.convert.download import PublishedFile
from tests.convert.file_server import at_most, closed_address, serve

BODY = bytes(range(256)) * 1000


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server():
    with serve(BODY) as server:
        yield server


@pytest.fixture
def published(server):
    def at(way):
        return PublishedFile(
            "weights.pth",
            f"{server.address}/{way}/weights.pth",
            hashlib.sha256(BODY).hexdigest(),
            len(BODY),
        )

    return at


@pytest.mark.parametrize("way", ["good", "moved"])
def test_a_file_comes_whole(published, tmp_path, way, capsys):
    path = tmp_path / "new" / "folder" / "weights.pth"
    published(way).download(path)
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir()] == ["weights.pth"]
    published(way).check(path)
    printed = capsys.readouterr()
    assert printed.out == "" and f"{way}/weights.pth" in printed.err


@pytest.mark.parametrize(
    "way, kind, message",
    [
        ("other", DamagedFileError, "Expected SHA-256: "),
        ("truncated", DamagedFileError, "Expected: 256000 bytes.*128000"),
        ("endless", DamagedFileError, "Expected: 256000 bytes"),
        ("missing", UnavailableFileError, "answers 404"),
        ("stalled", UnavailableFileError, "timed out"),
        ("mute", UnavailableFileError, "no answer|timed out"),
        ("dripping", UnavailableFileError, "hardly sends anything"),
    ],
)
def test_nothing_is_left_of_a_failure(
    published, tmp_path, monkeypatch, way, kind, message
):
    monkeypatch.setattr(download, "_ANSWER_SECONDS", 0.4)
    monkeypatch.setattr(download, "_STALL_SECONDS", 0.4)
    file = published(way)
    with at_most(3), pytest.raises(kind, match=message) as error:
        file.download(tmp_path / "weights.pth")
    assert file.url in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_was_there_stays_when_the_download_fails(
    published, tmp_path
):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"old")
    with pytest.raises(DamagedFileError):
        published("other").download(path)
    assert path.read_bytes() == b"old"


def test_a_refused_connection(published, tmp_path):
    file = dataclasses.replace(published("good"), url=closed_address())
    with at_most(3), pytest.raises(UnavailableFileError, match="refused"):
        file.download(tmp_path / "weights.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_search_for_an_address_that_takes_for_ever(
    published, tmp_path, monkeypatch
):
    monkeypatch.setattr(download, "_ANSWER_SECONDS", 0.2)
    monkeypatch.setattr(
        download.urllib.request, "urlopen", lambda *args, **_: time.sleep(9)
    )
    with at_most(3), pytest.raises(UnavailableFileError, match="no answer"):
        published("good").download(tmp_path / "weights.pth")


def test_a_folder_that_cannot_be_written(published, tmp_path, server):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableFileError, match="cannot be written"):
        published("good").download(tmp_path / "file" / "weights.pth")
    assert server.log == []


def test_a_full_disk_is_said_to_be_one(published, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableFileError, match="written.*No space left"):
        published("good").download(tmp_path / "weights.pth")
    assert list(tmp_path.iterdir()) == []


def test_files_are_compared_with_what_was_published(published, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(BODY[:-1] + b"x")
    with pytest.raises(DamagedFileError, match="SHA-256.*Delete it"):
        published("good").check(path)
    path.write_bytes(BODY[:-1])
    with pytest.raises(DamagedFileError, match="255999 bytes"):
        published("good").check(path)
