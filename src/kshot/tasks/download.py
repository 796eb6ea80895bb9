"""Downloads that are checked, resumed, and give up early on a machine without a network."""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from filelock import FileLock, Timeout
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from kshot.tasks.cache import DataUnavailable, writing

__all__ = ["download", "verify"]

_START_SECONDS = 4.5  # shared by all mirrors, so that a machine without a network waits less than 5 s
_STALL_SECONDS = 30.0  # silence in the middle of a download
_CHUNK = 1 << 18
_LONG = 4 << 20  # bytes from which on a download gets a progress bar
_RANGE_NOT_SATISFIABLE = 416


class _MirrorError(Exception):
    """One mirror could not serve the file."""


def download(urls: Sequence[str], path: Path, checksum: str, size: int | None = None) -> Path:
    """Make sure that ``path`` holds the file with this checksum, from the first mirror that has it.

    The bytes go to ``path`` with ``.part`` added, which is renamed once the checksum fits; what an interrupted download
    leaves there is where the next one goes on. A file that is already at ``path`` is checked and used. Of several
    processes one fetches, under a lock at ``path`` with ``.lock`` added, and the others wait for it.
    With ``KSHOT_OFFLINE=1`` in the environment nothing is fetched.

    Args:
        urls: mirrors, tried in this order.
        path: where the file goes.
        checksum: ``md5:`` or ``sha256:`` and hexadecimal digits.
        size: of the file in bytes, for the error.

    Raises:
        DataUnavailable: no mirror could serve the file, or it cannot be written; what to do by hand is said.
        ValueError: a file is already at ``path`` and has another checksum.
    """
    if path.exists():
        return _verify_found(path, checksum)
    wanted = f"{path.name} ({checksum}{'' if size is None else f', {size} bytes'})"
    by_hand = f"Fetch {urls[0]} on a machine with a network and place it at {path}."
    part = path.with_name(f"{path.name}.part")
    whole = part.exists() and _checksum(part, checksum) == checksum
    if not whole and os.environ.get("KSHOT_OFFLINE", "0") not in ("", "0"):
        raise DataUnavailable(f"{wanted} is not on this machine and KSHOT_OFFLINE forbids a download. {by_hand}")
    with _alone(path):
        if path.exists():  # another process has fetched it
            return _verify_found(path, checksum)
        if not whole and (failures := _fetch_from_any(urls, part, checksum)):
            raise DataUnavailable(f"could not download {wanted}; {'; '.join(failures)}. {by_hand}")
        with writing(path):
            return part.replace(path)


def _verify_found(path: Path, checksum: str) -> Path:
    return verify(path, checksum, "Delete it to have it downloaded, or put the right file there.")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Keep other processes from fetching the same file; wait, and say so, where one does."""
    lock = FileLock(path.with_name(f"{path.name}.lock"))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            Console(stderr=True).print(f"Waiting for another process that downloads {path.name}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_from_any(urls: Sequence[str], part: Path, checksum: str) -> list[str]:
    """Complete ``part`` from the first mirror that can; return what each said where none could."""
    failures = []
    for url in urls:
        try:
            _fetch(url, part, checksum, _START_SECONDS / len(urls))
        except _MirrorError as failure:
            failures.append(f"{url}: {failure}")
        else:
            return []
    return failures


def verify(path: Path, checksum: str, mend: str) -> Path:
    """Return the path of a file with this checksum.

    Raises:
        ValueError: the checksum is another one; the message names the file, its size and checksum, and ends in ``mend``.
    """
    if (found := _checksum(path, checksum)) != checksum:
        raise ValueError(
            f"{path} is damaged or another file: expected {checksum}, found {found} in {path.stat().st_size} bytes. {mend}"
        )
    return path


def _checksum(path: Path, like: str) -> str:
    algorithm = like.partition(":")[0]
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return f"{algorithm}:{digest.hexdigest()}"


def _fetch(url: str, part: Path, checksum: str, seconds: float) -> None:
    """Complete ``part`` from one mirror, and start over once if what it held before does not fit."""
    for resume in (True, False) if part.exists() else (False,):
        _receive(url, part, part.stat().st_size if resume else 0, seconds)
        if (found := _checksum(part, checksum)) == checksum:
            return
        size = part.stat().st_size
        part.unlink()
    raise _MirrorError(f"expected {checksum}, found {found} in {size} bytes")


def _receive(url: str, part: Path, offset: int, seconds: float) -> None:
    """Write to ``part`` what a mirror sends, from ``offset`` on where it allows that, else from the start."""
    try:
        response = _open(url, offset, seconds)
    except HTTPError as error:
        error.close()
        if offset and error.code == _RANGE_NOT_SATISFIABLE:
            return  # nothing lies beyond the offset: the checksum tells whether that was all
        raise _MirrorError(f"HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException, ValueError) as error:
        raise _MirrorError(str(error)) from error
    with response, writing(part):
        resumed = bool(offset) and response.status == 206
        with part.open("ab" if resumed else "wb") as file:
            for chunk in _chunks(response, part.stem, offset if resumed else 0):
                file.write(chunk)


def _open(url: str, offset: int, seconds: float) -> HTTPResponse:
    """Open a url within ``seconds``.

    A thread asks, because neither a hanging name server nor a host with many addresses minds the timeout of urlopen.
    """
    request = Request(url, headers={"User-Agent": "kshot"} | ({"Range": f"bytes={offset}-"} if offset else {}))
    answer: Future[HTTPResponse] = Future()

    def ask() -> None:
        try:
            answer.set_result(urlopen(request, timeout=_STALL_SECONDS))
        except Exception as error:
            answer.set_exception(error)

    Thread(target=ask, daemon=True).start()
    try:
        return answer.result(seconds)
    except FutureTimeoutError as error:
        answer.add_done_callback(_close)
        raise _MirrorError(f"no answer within {seconds:.1f} s") from error


def _close(answer: "Future[HTTPResponse]") -> None:
    """Close a response that came too late."""
    error = answer.exception()
    if error is None:
        answer.result().close()
    elif isinstance(error, HTTPError):
        error.close()


def _chunks(response: HTTPResponse, name: str, offset: int) -> Iterator[bytes]:
    """Yield the body of a response, and raise where it ends too early."""
    expected = None if response.length is None else offset + response.length
    received = offset
    with _progress(name, offset, expected) as advance:
        try:
            while chunk := response.read(_CHUNK):
                yield chunk
                received += len(chunk)
                advance(len(chunk))
        except (OSError, HTTPException) as error:
            raise _MirrorError(f"broke off after {received} bytes ({error})") from error
    if expected is not None and received < expected:
        raise _MirrorError(f"broke off after {received} of {expected} bytes; the next call goes on from there")


@contextmanager
def _progress(name: str, done: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Show a bar on a terminal if the download is long; give the function that moves it."""
    console = Console(stderr=True)
    if not console.is_terminal or (total is not None and total - done < _LONG):
        yield lambda _: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(name, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
