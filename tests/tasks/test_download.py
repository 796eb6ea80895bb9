import contextlib
import hashlib
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from filelock import FileLock

from kshot.atomic import atomic_file
from kshot.tasks.cache import DataUnavailable, data_folder
from kshot.tasks.download import download

CONTENT = bytes(range(256)) * 4000
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"


class Mirror(BaseHTTPRequestHandler):
    """Serves CONTENT; the path says how: /file, /no-range, /cut, /page, /gone; it notes the Range of each request."""

    ranges: list[str | None]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.ranges.append(wanted)
        if self.path == "/gone":
            self.send_error(404)
            return
        body = b"<html>quota exceeded</html>" if self.path == "/page" else CONTENT
        start = int(wanted[6:-1]) if wanted and self.path == "/file" else 0
        if start >= len(body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        self.wfile.write(body[start : len(body) // 2 if self.path == "/cut" else None])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def mirror(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.delenv("KSHOT_OFFLINE", raising=False)
    Mirror.ranges = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as server:
        Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/file"


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/file"


def files(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.suffix != ".lock")


def test_download_checks_and_leaves_one_file(mirror: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "a.zip"
    assert download([f"{mirror}/file"], path, CHECKSUM) == path
    assert path.read_bytes() == CONTENT
    assert files(path.parent) == ["a.zip"]
    assert capfd.readouterr() == ("", "")


def test_md5(mirror: str, tmp_path: Path) -> None:
    download([f"{mirror}/file"], tmp_path / "a", f"md5:{hashlib.md5(CONTENT).hexdigest()}")
    assert files(tmp_path) == ["a"]


@pytest.mark.parametrize("first", ["page", "gone", "cut"])
def test_the_next_mirror_serves_where_the_first_fails(mirror: str, tmp_path: Path, first: str) -> None:
    download([f"{mirror}/{first}", f"{mirror}/file"], tmp_path / "a", CHECKSUM)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert files(tmp_path) == ["a"]


def test_wrong_bytes_everywhere_is_an_error_that_says_what_to_do(mirror: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with pytest.raises(DataUnavailable) as caught:
        download([f"{mirror}/page", f"{mirror}/gone"], path, CHECKSUM, size=len(CONTENT))
    page = hashlib.sha256(b"<html>quota exceeded</html>").hexdigest()
    for part in (CHECKSUM, f"{len(CONTENT)} bytes", page, "27 bytes", "HTTP 404", f"{mirror}/page", str(path)):
        assert part in str(caught.value)
    assert files(tmp_path) == []


def test_an_interruption_leaves_the_part_and_the_next_call_goes_on(mirror: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with pytest.raises(DataUnavailable, match=f"broke off after {len(CONTENT) // 2} of {len(CONTENT)} bytes"):
        download([f"{mirror}/cut"], path, CHECKSUM)
    assert files(tmp_path) == ["a.zip.part"]
    download([f"{mirror}/file"], path, CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert files(tmp_path) == ["a.zip"]
    assert Mirror.ranges == [None, f"bytes={len(CONTENT) // 2}-"]


def test_a_server_without_ranges_starts_over(mirror: str, tmp_path: Path) -> None:
    (tmp_path / "a.part").write_bytes(CONTENT[:1000])
    download([f"{mirror}/no-range"], tmp_path / "a", CHECKSUM)
    assert (tmp_path / "a").read_bytes() == CONTENT


@pytest.mark.parametrize("length", [1000, len(CONTENT), 2 * len(CONTENT)])
def test_a_part_of_another_file_is_dropped(mirror: str, tmp_path: Path, length: int) -> None:
    (tmp_path / "a.part").write_bytes(b"x" * length)
    download([f"{mirror}/file"], tmp_path / "a", CHECKSUM)
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert Mirror.ranges == [f"bytes={length}-", None]


def test_of_two_processes_one_fetches_and_the_other_waits(
    mirror: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a"
    with ThreadPoolExecutor() as pool:
        with FileLock(tmp_path / "a.lock"):
            other = pool.submit(download, [f"{mirror}/file"], path, CHECKSUM)
            said = ""
            while "Waiting for another process that downloads a" not in said and not other.done():
                said += capfd.readouterr().err
            assert not other.done()
            path.write_bytes(CONTENT)
        assert other.result() == path
    assert Mirror.ranges == []


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_part_that_is_whole_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: str) -> None:
    monkeypatch.setenv("KSHOT_OFFLINE", offline)
    (tmp_path / "a.part").write_bytes(CONTENT)
    download([closed_port()], tmp_path / "a", CHECKSUM)
    assert files(tmp_path) == ["a"]


def test_a_file_placed_by_hand_is_checked_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_OFFLINE", "1")
    path = tmp_path / "a.zip"
    path.write_bytes(CONTENT)
    assert download([closed_port()], path, CHECKSUM) == path
    path.write_bytes(CONTENT[:-1])
    found = hashlib.sha256(CONTENT[:-1]).hexdigest()
    with pytest.raises(ValueError, match=f"a.zip is damaged.*expected {CHECKSUM}, found sha256:{found}.*Delete it"):
        download([closed_port()], path, CHECKSUM)
    assert path.exists()


def test_offline_mode_asks_nobody(mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KSHOT_OFFLINE", "1")
    with pytest.raises(DataUnavailable, match="KSHOT_OFFLINE"):
        download([f"{mirror}/file"], tmp_path / "a", CHECKSUM)
    assert Mirror.ranges == []
    monkeypatch.setenv("KSHOT_OFFLINE", "0")
    download([f"{mirror}/file"], tmp_path / "a", CHECKSUM)


def test_unreachable_mirrors_are_given_up_within_five_seconds(
    silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KSHOT_OFFLINE", raising=False)
    began = time.monotonic()
    with pytest.raises(DataUnavailable, match=r"no answer within.*refused"):
        download([silent, silent, closed_port()], tmp_path / "a.zip", CHECKSUM)
    assert time.monotonic() - began < 5
    assert files(tmp_path) == []


def test_a_hanging_name_server_is_given_up_too(mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kshot.tasks.download._START_SECONDS", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(0.5) or [])
    began = time.monotonic()
    with pytest.raises(DataUnavailable, match="no answer within"):
        download([f"{mirror}/file"], tmp_path / "a.zip", CHECKSUM)
    assert time.monotonic() - began < 0.4


def test_an_answer_that_comes_too_late_is_closed(mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lookup = socket.getaddrinfo
    monkeypatch.setattr("kshot.tasks.download._START_SECONDS", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: time.sleep(0.2) or lookup(*args, **kwargs))
    with pytest.raises(DataUnavailable, match="no answer within"):
        download([f"{mirror}/file"], tmp_path / "a.zip", CHECKSUM)
    time.sleep(0.3)
    assert Mirror.ranges == [None]  # the answer came; a socket left open would fail the test as a ResourceWarning


def test_a_disk_that_takes_no_more_is_named(mirror: str, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="needs a limit on the size of files")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(DataUnavailable, match=r"cannot write .*a\.part.*KSHOT_DATA"):
            download([f"{mirror}/file"], tmp_path / "a", CHECKSUM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(tmp_path) == ["a.part"]


def test_a_folder_that_cannot_be_made_is_named(mirror: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataUnavailable, match="cannot write"):
        download([f"{mirror}/file"], tmp_path / "file" / "a", CHECKSUM)


def test_a_long_download_shows_a_bar_on_a_terminal_only(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kshot.tasks.download._LONG", 1000)
    download([f"{mirror}/file"], tmp_path / "plain.zip", CHECKSUM)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("FORCE_COLOR", "1")
    download([f"{mirror}/file"], tmp_path / "shown.zip", CHECKSUM)
    out, err = capfd.readouterr()
    assert out == ""
    assert "shown.zip" in err


def test_the_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KSHOT_DATA", str(tmp_path))
    assert data_folder() == tmp_path
    monkeypatch.setenv("KSHOT_DATA", "~/data")
    assert data_folder() == Path.home() / "data"
    monkeypatch.delenv("KSHOT_DATA")
    for platform, variable in (("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")):
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setenv(variable, str(tmp_path))
        assert data_folder() == tmp_path / "kshot"
        monkeypatch.delenv(variable)
        assert Path.home() in data_folder().parents
    monkeypatch.setattr(sys, "platform", "darwin")
    assert data_folder() == Path.home() / "Library" / "Caches" / "kshot"


def test_a_file_takes_its_name_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with contextlib.suppress(KeyError), atomic_file(path) as file:
        file.write(b"half")
        raise KeyError("interrupted")
    assert files(tmp_path) == []
    with atomic_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole"
    assert files(tmp_path) == ["a"]
