"""A published file comes whole and checked, or not at all.

What came before a download broke off is kept beside it, and goes on.
"""

import dataclasses
import hashlib
import os
import threading
import time

import pytest

from keras_vq.convert import (
    DamagedFileError,
    UnavailableFileError,
    download,
    partial_file,
)
from keras_vq.convert.download import PublishedFile
from tests.convert import downloading
from tests.convert.download_kills import killed_downloads, parts
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


@pytest.mark.parametrize("way", ["good", "moved", "endless"])
def test_a_file_comes_whole(published, tmp_path, way, capsys):
    path = tmp_path / "new" / "folder" / "weights.pth"
    published(way).download(path)
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir()] == ["weights.pth"]
    published(way).check(path)
    printed = capsys.readouterr()
    assert printed.out == "" and f"{way}/weights.pth" in printed.err


@pytest.mark.parametrize(
    "way, kind, message, kept",
    [
        ("other", DamagedFileError, "Expected SHA-256: ", 0),
        ("truncated", UnavailableFileError, "ended too early", 128000),
        ("missing", UnavailableFileError, "answers 404", 0),
        ("stalled", UnavailableFileError, "(timed|hardly).* 9 bytes", 9),
        ("mute", UnavailableFileError, "no answer|timed out", 0),
        ("dripping", UnavailableFileError, "hardly sends anything", 1),
    ],
)
def test_a_failure_leaves_no_file(
    published, tmp_path, monkeypatch, way, kind, message, kept
):
    if way in ("stalled", "mute", "dripping"):
        monkeypatch.setattr(download, "_ANSWER_SECONDS", 0.4)
        monkeypatch.setattr(download, "_STALL_SECONDS", 0.4)
    file, path = published(way), tmp_path / "weights.pth"
    with at_most(9), pytest.raises(kind, match=message) as error:
        file.download(path)
    assert file.url in str(error.value)
    assert not path.exists()
    if not kept:
        assert list(tmp_path.iterdir()) == []
        return
    # What is kept is named after the hash of the whole.
    (part,) = parts(path)
    assert file.sha256[:16] in part.name
    content = part.read_bytes()
    assert len(content) >= kept and BODY.startswith(content)
    assert "try again" in str(error.value)


# Going on


@pytest.fixture
def half(published, tmp_path):
    """A download that broke off in the middle; gives the path."""
    path = tmp_path / "weights.pth"
    with pytest.raises(UnavailableFileError, match="ended too early"):
        published("breaking").download(path)
    (part,) = parts(path)
    assert part.read_bytes() == BODY[: len(BODY) // 2]
    return path


def assert_whole(path):
    assert path.read_bytes() == BODY
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("way", ["ranges", "away"])
def test_it_goes_on_where_it_stopped(published, server, half, way):
    published(way).download(half)
    assert_whole(half)
    assert server.firsts == [0, len(BODY) // 2]


def test_it_goes_on_again_and_again(published, server, half):
    while not half.exists():
        try:
            published("breaking").download(half)
        except UnavailableFileError:
            assert len(server.firsts) < 30
    assert_whole(half)
    assert server.firsts == sorted(set(server.firsts))


@pytest.mark.parametrize(
    "way, answers", [("good", [0]), ("beside", [len(BODY) // 2, 0])]
)
def test_servers_that_send_something_else_send_it_all(
    published, server, half, way, answers
):
    """Ranges that are ignored, and another range than the wanted one."""
    published(way).download(half)
    assert_whole(half)
    assert server.firsts == [0, *answers]


def test_another_version_comes_as_a_whole(published, server, half):
    (part,) = parts(half)
    part.write_bytes(bytes(1000))  # Of the former version.
    server.etag = '"2"'
    published("ranges").download(half)
    assert_whole(half)
    assert server.firsts == [0, 0]


@pytest.mark.parametrize("etag", ["", 'W/"1"'])
def test_a_beginning_of_another_file_is_thrown_away(
    published, server, tmp_path, etag
):
    """Also where the server cannot tell that it is one."""
    server.etag, path = etag, tmp_path / "weights.pth"
    with pytest.raises(UnavailableFileError):
        published("breaking").download(path)
    (part,) = parts(path)
    part.write_bytes(bytes(1000))
    published("ranges").download(path)
    assert_whole(path)
    assert server.firsts == [0, 1000, 0]


@pytest.mark.parametrize("size", [len(BODY), len(BODY) + 9])
def test_too_much_is_not_continued(published, server, half, size):
    (part,) = parts(half)
    part.write_bytes(bytes(size))
    published("ranges").download(half)
    assert_whole(half)
    assert server.firsts == [0, 0]


def test_all_of_it_needs_no_answer(published, server, half):
    """The process died between the last byte and the name."""
    (part,) = parts(half)
    part.write_bytes(BODY)
    published("ranges").download(half)
    assert_whole(half)
    assert server.firsts == [0]


def test_a_wrong_file_is_not_kept(published, tmp_path, server):
    file = dataclasses.replace(published("ranges"), sha256="0" * 64)
    with pytest.raises(DamagedFileError, match="Expected SHA-256: 0000"):
        file.download(tmp_path / "weights.pth")
    assert list(tmp_path.iterdir()) == []


def test_a_shorter_file_is_refused_at_once(published, tmp_path, server):
    file = dataclasses.replace(published("ranges"), size=len(BODY) + 1)
    with pytest.raises(DamagedFileError, match="sends.*256000 bytes"):
        file.download(tmp_path / "weights.pth")
    assert list(tmp_path.iterdir()) == []


# Where no SHA-256 was published


def test_git_knows_it(published, tmp_path):
    # What `git hash-object` says.
    blob = "ed99543dba99b885850a5e5a6bf95545aaa9754c"
    file = dataclasses.replace(
        published("good"), sha256=None, size=None, git_blob=blob
    )
    path = tmp_path / "weights.pth"
    file.download(path)
    assert_whole(path)
    wrong = dataclasses.replace(file, git_blob=blob[::-1])
    with pytest.raises(DamagedFileError, match=f"git blob id: {blob[::-1]}"):
        wrong.check(path)


def test_nobody_knows_it(published, server, tmp_path):
    path = tmp_path / "weights.pth"

    def unknown(way):
        return dataclasses.replace(published(way), sha256=None, size=None)

    with pytest.raises(UnavailableFileError, match="does not say how large"):
        unknown("unmeasured").download(path)
    # Without a hash, only the server can tell that it is the same file.
    for etag, first in (('"1"', len(BODY) // 2), ("", 0)):
        server.etag = etag
        address = f"{server.address}/breaking/{first}"
        file = dataclasses.replace(unknown("x"), url=address)
        with pytest.raises(UnavailableFileError, match="too early"):
            file.download(path)
        assert not path.exists()
        with pytest.raises(UnavailableFileError, match="too early"):
            file.download(path)
        assert server.firsts[-1] == first


# Several at once


def test_two_processes_fetch_it_once(published, server, tmp_path):
    path = tmp_path / "weights.pth"
    running = [downloading.start(published("slow"), path) for _ in "12"]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert_whole(path)
    assert len(server.firsts) == 1


def test_one_that_gets_nowhere_stops_nobody(
    published, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(partial_file, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(partial_file, "_PAUSE_SECONDS", 0.05)
    path = tmp_path / "weights.pth"
    errors = []

    def stall():
        try:
            published("stalled").download(path)
        except UnavailableFileError as error:
            errors.append(error)

    thread = threading.Thread(target=stall)
    thread.start()
    while not server.firsts:
        time.sleep(0.01)
    published("good").download(path)
    assert path.read_bytes() == BODY
    server.stopped.set()
    thread.join(20)
    assert len(errors) == 1 and path.read_bytes() == BODY


def test_where_files_cannot_be_locked(published, tmp_path, monkeypatch):
    monkeypatch.setattr(partial_file, "fcntl", None)
    path = tmp_path / "weights.pth"
    with pytest.raises(UnavailableFileError, match="too early"):
        published("breaking").download(path)
    assert list(tmp_path.iterdir()) == []
    published("good").download(path)
    assert_whole(path)


def test_kills_leave_nothing_that_looks_good(tmp_path):
    clean, begun, first = killed_downloads(tmp_path, kills=3, seed=1)
    assert clean == 3 and begun and first


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
    path = tmp_path / "weights.pth"
    with pytest.raises(UnavailableFileError, match="written.*No space left"):
        published("good").download(path)
    assert not path.exists()


def test_files_are_compared_with_what_was_published(published, tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(BODY[:-1] + b"x")
    with pytest.raises(DamagedFileError, match="SHA-256.*Delete it"):
        published("good").check(path)
    path.write_bytes(BODY[:-1])
    with pytest.raises(DamagedFileError, match="255999 bytes"):
        published("good").check(path)
