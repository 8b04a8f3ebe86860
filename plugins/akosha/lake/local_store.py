"""A folder as an object store. Success means: fsynced, file and directory."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG

from akosha.errors import ConfigurationError, DiskFullError, ObjectMissingError
from akosha.lake.failpoints import around, point
from akosha.lake.objects import ObjectInfo, Requests

HIDDEN = "."


class LocalStore:
    """Objects are files below `root`; names that start with a dot are unfinished writes and are never listed."""

    def __init__(self, root: Path, *, setting: str) -> None:
        self.root = root
        self.requests = Requests()
        self._setting = setting

    @property
    def url(self) -> str:
        """The folder as a file URL."""
        return f"file://{self.root}"

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create by `os.link` of a fsynced temporary file: a crash never leaves an empty or torn object."""
        self.requests.count_other()
        with self._temporary(key) as (temporary, final):
            _write_synced(temporary, data)
            try:
                with around("link"):
                    os.link(temporary, final)
            except FileExistsError:
                return False
        _sync_folder(final.parent)
        return True

    def put(self, key: str, data: bytes) -> None:
        """Write by atomic rename."""
        self.requests.count_other()
        with self._temporary(key) as (temporary, final):
            _write_synced(temporary, data)
            with around("rename"):
                temporary.replace(final)
        _sync_folder(final.parent)

    def upload(self, key: str, path: Path) -> None:
        """Link the file in where the file system allows it, else copy it."""
        self.requests.count_other()
        with self._temporary(key) as (temporary, final):
            try:
                with around("upload"):
                    os.link(path, temporary)
            except OSError as error:
                if error.errno not in {errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK}:
                    raise
                shutil.copyfile(path, temporary)
            with temporary.open("rb") as file, around("fsync"):
                os.fsync(file.fileno())
            with around("link"):
                os.link(temporary, final)
        _sync_folder(final.parent)

    def get(self, key: str) -> bytes:
        """Read a whole file."""
        self.requests.count_other()
        with self._reading(key), around("read"):
            return self._file(key).read_bytes()

    def read(self, key: str, *, max_bytes: int) -> tuple[ObjectInfo, bytes]:
        """Read a whole file that stays as it is meanwhile."""
        self.requests.count_other()
        with self._unchanged(key) as found, around("read"):
            return found, self._file(key).read_bytes() if found.size_bytes <= max_bytes else b""

    def download(self, key: str, path: Path, *, max_bytes: int = 0) -> ObjectInfo:
        """Copy out a file that stays as it is meanwhile."""
        self.requests.count_other()
        with self._unchanged(key) as found:
            if 0 < max_bytes < found.size_bytes:
                return found
            try:
                with around("download"):
                    shutil.copyfile(self._file(key), path)
            except OSError as error:
                if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                    raise
                message = "no room left on the disk behind AKOSHA_CACHE_DIR; free space or point the setting elsewhere"
                raise DiskFullError(message, setting="AKOSHA_CACHE_DIR") from error
            return found

    def stat(self, key: str) -> ObjectInfo | None:
        """Size and times of a file."""
        self.requests.count_other()
        with around("stat"):
            return self._look(key)

    def list(self, prefix: str, *, start_after: str = "", limit: int = 0) -> Iterator[ObjectInfo]:
        """Walk the folder that holds `prefix`, in order of keys."""
        self.requests.count_list()
        point("list")
        folder = self.root / prefix if prefix.endswith("/") or not prefix else (self.root / prefix).parent
        keys = sorted(key for key in self._keys(folder) if key.startswith(prefix) and key > start_after)
        for key in keys[:limit] if limit else keys:
            found = self._look(key)
            if found is not None:
                yield found

    def list_folders(self, prefix: str) -> Sequence[str]:
        """Folders directly below `prefix` in which some file lies, however deep."""
        self.requests.count_list()
        point("list")
        try:
            with self._reading(prefix), os.scandir(self.root / prefix) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(HIDDEN))
        except ObjectMissingError:
            return []
        return [name for name in names if next(self._keys(self.root / prefix / name), None) is not None]

    def delete(self, key: str) -> None:
        """Unlink a file."""
        self.requests.count_other()
        with around("delete"):
            (self.root / key).unlink(missing_ok=True)

    def local_path(self, key: str) -> Path | None:
        """The file itself."""
        return self.root / key

    @contextmanager
    def _unchanged(self, key: str) -> Iterator[ObjectInfo]:
        with self._reading(key):
            found = self._info(self._file(key))
            yield found
            if self._info(self._file(key)) != found:
                message = "the object changed while it was read; it is read again in the next run"
                raise ObjectMissingError(message, key=key, store=self.url)

    def _look(self, key: str) -> ObjectInfo | None:
        try:
            with self._reading(key):
                return self._info(self._file(key))
        except ObjectMissingError:
            return None

    def _file(self, key: str) -> Path:
        """The path of an object. A folder is none, although a path drops the slash that says so."""
        if key.endswith("/"):
            raise IsADirectoryError(key)
        return self.root / key

    def _keys(self, folder: Path) -> Iterator[str]:
        for parent, folders, files in os.walk(folder, onerror=_raise_unless_gone):
            folders[:] = [name for name in folders if not name.startswith(HIDDEN)]
            for name in files:
                if not name.startswith(HIDDEN):
                    yield (Path(parent) / name).relative_to(self.root).as_posix()

    def _info(self, path: Path) -> ObjectInfo:
        found = path.stat()
        if not S_ISREG(found.st_mode):
            raise IsADirectoryError(path)
        etag = f"{found.st_mtime_ns:x}-{found.st_size:x}"
        modified = datetime.fromtimestamp(found.st_mtime, UTC)
        return ObjectInfo(path.relative_to(self.root).as_posix(), found.st_size, etag, modified)

    @contextmanager
    def _temporary(self, key: str) -> Iterator[tuple[Path, Path]]:
        final = self.root / key
        temporary = final.parent / f"{HIDDEN}{uuid.uuid4().hex}.part"
        try:
            _make_folders(final.parent)
            yield temporary, final
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                message = f"no room left on the disk behind {self._setting}; free space or point the setting elsewhere"
                raise DiskFullError(message, setting=self._setting, store=self.url) from error
            if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR}:
                raise self._refused(error, to="write") from error
            raise
        finally:
            with suppress(NotADirectoryError, PermissionError):  # nothing was made there, and why is on its way up
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            message = "the object is not in the store"
            raise ObjectMissingError(message, key=key, store=self.url) from None
        except PermissionError as error:
            raise self._refused(error, to="read") from error

    def _refused(self, error: OSError, *, to: str) -> ConfigurationError:
        message = f"cannot {to} below {self.root} ({error.strerror}); change {self._setting} or its permissions"
        return ConfigurationError(message, setting=self._setting)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        with around("write"):
            file.write(data)
            file.flush()
        with around("fsync"):
            os.fsync(file.fileno())


def _make_folders(folder: Path) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        try:
            with around("mkdir"):
                path.mkdir(exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, "a file is in the way", str(path)) from error
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with around("fsync folder"):
            os.fsync(handle)
    finally:
        os.close(handle)


def _raise_unless_gone(error: OSError) -> None:
    """An unreadable folder is not an empty one."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        raise error
