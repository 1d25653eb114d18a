"""The spool's directory: who may open it, and is what lies there fit to be opened?

Everything that has to be known before the environment is opened, because the library finds out too
late or not at all: a second process, a symbolic link, rights for others, a file cut short (a read
behind its end kills the process with SIGBUS), a damaged meta page. And the ballast: octets that are
given up when the disk is full, so that deletions still have room. Knows no table and no record.
"""

import errno
import fcntl
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from struct import Struct
from typing import Final

import lmdb
import lmdb.verify

from engine.spool.disk_calls import DiskRoom
from engine.spool.interface import SpoolUnusable

# What the page header and the meta page of LMDB's format 1 say where (64-bit, little-endian).
META_MAGIC: Final = 0xBEEFC0DE
META_VERSION: Final = 1
META_AT: Final = 16
META_START: Final = Struct("<II")
META_PAGE_SIZE_AT: Final = META_AT + 24
META_ENDS: Final = Struct("<QQ")
META_ENDS_AT: Final = META_AT + 120
META_OCTETS: Final = META_ENDS_AT + META_ENDS.size

# Enough for the pages that a few commits of deletions copy.
BALLAST_OCTETS: Final = 16 * 1024 * 1024

logger = logging.getLogger(__name__)


def prepare_directory(path: Path) -> None:
    """Make `path` if it is missing; see that it is a directory of ours that nobody else can enter.

    Rights that are too wide are taken back. Raises SpoolUnusable, saying what is in the way.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.is_symlink() and not path.exists():
            path.mkdir(mode=0o700)
            sync_directory(path.parent)
        _see_to_rights(path, 0o700, stat.S_IFDIR)
    except FileExistsError as error:
        raise SpoolUnusable(f"{error.filename} is not a directory") from error
    except OSError as error:
        raise SpoolUnusable(f"spool directory {path}: {error.strerror}") from error


def prepare_files(path: Path) -> None:
    """See that the files in the directory are plain, ours, and closed to others."""
    for name in ("data.mdb", "lock.mdb", "lock", "ballast", "handed_over"):
        try:
            if os.path.lexists(path / name):
                _see_to_rights(path / name, 0o600, stat.S_IFREG)
        except OSError as error:
            raise SpoolUnusable(f"spool file {path / name}: {error.strerror}") from error


def _see_to_rights(path: Path, mode: int, kind: int) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise SpoolUnusable(f"{path} is a symbolic link; the spool has to be the place itself")
    if stat.S_IFMT(found.st_mode) != kind:
        raise SpoolUnusable(f"{path} is not a {'directory' if mode & 0o100 else 'plain file'}")
    if found.st_uid != os.geteuid():
        raise SpoolUnusable(f"{path} belongs to user {found.st_uid}, we are {os.geteuid()}")
    if stat.S_IMODE(found.st_mode) != mode:
        path.chmod(mode)
        if stat.S_IMODE(path.lstat().st_mode) != mode:
            raise SpoolUnusable(f"{path} has to have mode {mode:o} and does not take it")


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable; syncing the files alone does not."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the spool's lock file. Raises SpoolUnusable with the pid of who holds it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SpoolUnusable(f"lock file {path}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise SpoolUnusable(f"lock file {path}: {error.strerror}") from error
            pid = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
            raise SpoolUnusable(
                f"the spool is in use by process {pid or 'unknown'} (lock file {path})"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        # The file stays: who removed it could remove the one that another process just locked.
        os.close(descriptor)


def check_data_file(path: Path) -> None:
    """Compare a data file with what its meta pages say. Raises SpoolUnusable.

    A missing or empty file is a spool that has not begun.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                return
            start = file.read(META_OCTETS)
            page_size = _meta_of(start, path)[0]
            file.seek(page_size)
            metas = [_meta_of(start, path), _meta_of(file.read(META_OCTETS), path)]
    except FileNotFoundError:
        return
    except OSError as error:
        raise SpoolUnusable(f"{path}: {error.strerror}") from error
    _, last_page, _ = max(metas, key=lambda meta: meta[2])
    if size < (last_page + 1) * page_size:
        _see_that_nothing_is_lost(path, size, (last_page + 1) * page_size)


def lengthen_data_file(path: Path, octets: int) -> None:
    """Make a data file as long as its meta page says, should it be shorter."""
    if path.stat().st_size < octets:
        os.truncate(path, octets)


def _see_that_nothing_is_lost(path: Path, size: int, octets: int) -> None:
    """Tell a file that was cut from one that was never longer.

    A page that a transaction takes at the end and frees again is never written: such a file is
    short and whole, until the commit that made it so has lengthened it. A kill in between leaves
    it. Then only a walk over all pages tells; it takes seconds for each hundred megabytes.
    """
    logger.warning("spool: %s is shorter than its meta page says; looking at every page", path)
    try:
        problems = lmdb.verify.verify(str(path))  # type: ignore[no-untyped-call]  # ships no types
    except (lmdb.verify.VerifyError, OSError) as error:
        problems = [str(error)]
    if problems:
        raise SpoolUnusable(
            f"{path} is cut short: it has {size} octets, its meta page tells of {octets}"
            f" ({problems[0]})"
        )
    lengthen_data_file(path, octets)


def _meta_of(octets: bytes, path: Path) -> tuple[int, int, int]:
    """Return page size, last page and transaction of one meta page."""
    if len(octets) < META_OCTETS:
        raise SpoolUnusable(f"{path} is cut short: a meta page is missing")
    magic, version = META_START.unpack_from(octets, META_AT)
    page_size = int.from_bytes(octets[META_PAGE_SIZE_AT : META_PAGE_SIZE_AT + 4], "little")
    last_page, transaction = META_ENDS.unpack_from(octets, META_ENDS_AT)
    if magic != META_MAGIC or page_size not in (512, 1024, 2048, 4096, 8192, 16384, 32768):
        raise SpoolUnusable(f"{path}: a meta page is damaged, or this is no spool")
    if version != META_VERSION:
        raise SpoolUnusable(f"{path} is of LMDB format {version}, this program uses {META_VERSION}")
    return page_size, last_page, transaction


class Disk:
    """The file system below the spool: what is free, and the ballast."""

    def __init__(self, path: Path, *, free_octets_min: int) -> None:
        self._path = path
        self._ballast = path / "ballast"
        self._free_octets_min = free_octets_min

    def free_octets(self) -> int:
        found = os.statvfs(self._path)
        return found.f_bavail * found.f_frsize

    def room(self) -> DiskRoom | None:
        """Return what is free; None if the file system does not say."""
        try:
            return DiskRoom(self.free_octets(), self._free_octets_min)
        except OSError:
            return None

    def described(self) -> str:
        """Return where it is and what is free, for who reads why a commit failed."""
        try:
            return f"{self._path}, {self.free_octets()} octets free"
        except OSError as error:
            return f"{self._path}, {error.strerror}"

    def has_room_for_intake(self) -> bool:
        return self.free_octets() >= self._free_octets_min

    def keep_ballast(self) -> None:
        """Lay the ballast on if there is room for it, give it up if there is none left."""
        free_octets = self.free_octets()
        if self._ballast.exists():
            self.give_up_ballast_if_full()
        elif free_octets >= self._free_octets_min + BALLAST_OCTETS:
            descriptor = os.open(
                self._ballast, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600
            )
            try:
                # Allocated for real: a sparse file would give nothing back.
                os.posix_fallocate(descriptor, 0, BALLAST_OCTETS)
            except OSError:
                # A disk without room, or one that allocates nothing ahead: then there is none.
                self.give_up_ballast()
            finally:
                os.close(descriptor)

    def give_up_ballast_if_full(self) -> None:
        # A disk that has less left than this fails the next commit of some size anyhow.
        if self.free_octets() < BALLAST_OCTETS // 4:
            self.give_up_ballast()

    def give_up_ballast(self) -> None:
        self._ballast.unlink(missing_ok=True)
