"""Files that are whole or refused: written in one step, checked in every byte when read.

Every file appears whole or not at all: a temporary file in the same folder, fsync, rename, fsync of
the folder. A pair with checksums is a JSON manifest and a safetensors file; the manifest holds the
sha256 of every tensor, of the tensor file and of itself, so that a flipped bit is refused
(safetensors alone loads it silently). No pickle is read.
"""

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import secrets
import stat
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from leancnn import manifests
from leancnn.errors import DamagedError, RunError, WriteError

Tensors = dict[str, "np.ndarray[Any, Any]"]
State = Literal["intact", "edited", "plain"]

TEMPORARY = re.compile(r"\..+\.[0-9]+\.tmp")  # a file that is being written
READS = 3  # of a pair, before what does not fit together is called damage
READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
MOST_BYTES = 1 << 34  # of any file that is read at once
MOST_MANIFEST = 1 << 26
MOST_LIBRARY = 1 << 31
DAY_S = 86_400
NEXT = ".next"  # a tensor file whose manifest may already be in place


def atomic_write(path: Path, data: bytes) -> None:
    """Write the whole file or leave what stood there. A link is replaced, not followed.

    A kill leaves at most a `.tmp`, which the next write of the same name removes.

    Raises `WriteError` with the path and the bytes needed when the disk is full, read-only or
    closed to us.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_temporaries(path.parent, path.name)
        for _ in range(READS):
            with contextlib.suppress(FileNotFoundError):  # swept before it was held
                _replace(path, data)
                break
        else:
            _replace(path, data)
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, len(data), error) from error
    except ValueError as error:  # such as "." or "/"
        raise WriteError(f"{path} is no name for a file ({error}); choose another") from error


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}{secrets.randbelow(10**6):06d}.tmp")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(temporary, flags, 0o666), "wb") as file:
            hold(file.fileno())
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def hold(handle: int) -> None:
    """Keep an open temporary file from `sweep_temporaries` until it is closed."""
    with contextlib.suppress(OSError):  # a file system without locks
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def sweep_temporaries(folder: Path, name: str | None = None) -> list[Path]:
    """Remove files that killed processes were writing, of one name or all; returns them."""
    gone = []
    for path in folder.glob(f".{'*' if name is None else glob.escape(name)}.*.tmp"):
        with contextlib.suppress(OSError):
            if TEMPORARY.fullmatch(path.name) and _forsaken(path):
                path.unlink()
                gone.append(path)
    return gone


def _forsaken(path: Path) -> bool:
    """Whether no process holds a temporary file; without locks, whether it is a day old."""
    handle = os.open(path, READING | os.O_NOFOLLOW)
    try:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode):
            return False
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return time.time() - about.st_mtime > DAY_S
    finally:
        os.close(handle)
    return True


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a regular file, which a pipe or a device is not.

    Raises `FileNotFoundError`, `DamagedError` for anything else that is no such file.
    """
    try:
        handle = os.open(path, READING)  # without waiting for who would write into a pipe
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                raise DamagedError(f"{path} is no file but a {_kind(about.st_mode)}")
            if about.st_size > most:
                raise DamagedError(
                    f"{path} has {about.st_size:,} bytes, more than the {most:,} that it may have"
                )
            return file.read()
    except FileNotFoundError:
        raise
    except (OSError, MemoryError, ValueError) as error:
        raise DamagedError(f"{path}: not readable ({error})") from error


def _kind(mode: int) -> str:
    tests = {"folder": stat.S_ISDIR, "pipe": stat.S_ISFIFO, "socket": stat.S_ISSOCK}
    return next((name for name, is_one in tests.items() if is_one(mode)), "device")


def check_writable(path: Path) -> None:
    """Raises `WriteError` where `atomic_write` would, but for a disk that fills up meanwhile."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.probe") if path.name else path
    atomic_write(probe, b"")
    probe.unlink(missing_ok=True)


def write_error(path: Path, size: int, error: OSError) -> WriteError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = (
        "free that much or choose another folder" if full else "choose a folder that can be written"
    )
    return WriteError(f"{path}: {size:,} bytes not written ({error.strerror or error}); {advice}")


def _sync_folder(folder: Path) -> None:
    """Make a rename last through a power cut, where the file system can."""
    with contextlib.suppress(PermissionError, NotADirectoryError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                os.fsync(handle)
        finally:
            os.close(handle)


def write_json(path: Path, value: object) -> None:
    """Write `value` as indented JSON, atomically. Raises `WriteError`."""
    atomic_write(path, _dump(value).encode())


def write_checked(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as JSON that ends with its own sha256, atomically. Raises `WriteError`."""
    atomic_write(path, _dump(_with_sha256(value)).encode())


def read_json(path: Path, kind: Any = None) -> Any:
    """What `write_json` or `write_checked` wrote, the latter checked in every byte.

    `kind` is a type of `manifests`. A file without a sha256 is one that leancnn 0.1 wrote: it must
    hold nothing that its kind does not know. Raises `DamagedError`, `RunError` for no file.
    """
    value, state = read_edited(path)
    if state == "edited":
        raise DamagedError(f"{path} is not what was written: its checksum does not fit")
    return value if kind is None else manifests.check(value, kind, path, closed=state == "plain")


def read_edited(path: Path) -> tuple[Any, State]:
    """As `read_json`, of any kind, and whether its sha256 fits, does not, or is not there."""
    try:
        text = read_bytes(path, MOST_MANIFEST).decode()
        value = json.loads(text, parse_constant=_no_number)
        if not isinstance(value, dict) or "sha256" not in value:
            return value, "plain"
        whole = _dump(value) == text  # other white space is a change, too
        digest = value.pop("sha256")
        whole = whole and digest == _with_sha256(value)["sha256"]
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{path}: not readable as JSON ({error})") from error
    return value, "intact" if whole else "edited"


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _with_sha256(value: Mapping[str, Any]) -> dict[str, Any]:
    return {**value, "sha256": _sha256(_dump(dict(value)).encode())}


def _dump(value: object) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not text, as the system hands it out
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    return text


def save_pair(
    manifest_path: Path, tensors_path: Path, manifest: Mapping[str, Any], tensors: Tensors
) -> None:
    """Write a pair so that at every moment one whole pair, the old or the new, can be read.

    The tensors first go beside their place, then the manifest that names their sha256 replaces the
    old one, then the tensors take their place; `load_pair` finds them in either. Raises
    `WriteError`.
    """
    from safetensors.numpy import save

    beside = tensors_path.with_name(tensors_path.name + NEXT)
    _finish_swap(manifest_path, tensors_path, beside)
    blob = save(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()}
    )
    checked = {
        **manifest,
        "file": {"name": tensors_path.name, "bytes": len(blob), "sha256": _sha256(blob)},
        "tensors": {name: tensor_sha256(array) for name, array in sorted(tensors.items())},
    }
    atomic_write(beside, blob)
    write_checked(manifest_path, checked)
    try:
        beside.replace(tensors_path)
    except OSError as error:
        raise write_error(tensors_path, len(blob), error) from error


def load_pair(
    manifest_path: Path, tensors_path: Path, kind: Any = manifests.Pair
) -> tuple[dict[str, Any], Tensors]:
    """Read such a pair and check every byte. Raises `DamagedError`: which file, what to do.

    A pair that another process replaces meanwhile is read again.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    places = tensors_path, tensors_path.with_name(tensors_path.name + NEXT)
    for _ in range(READS):
        manifest = read_manifest(manifest_path, kind)
        found = (_bytes_of(place, manifest["file"]["bytes"]) for place in places)
        blob = next((b for b in found if b and _is_named_by(b, manifest)), None)
        if blob is not None:
            break
    if blob is None:
        missing = not tensors_path.exists()
        what = "is missing" if missing else "is not what was written"
        raise DamagedError(
            f"{tensors_path} {what}; use another checkpoint, or save or train it again"
        )
    try:
        tensors = load(blob)
    except (SafetensorError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise DamagedError(f"{tensors_path}: not a safetensors file ({error})") from error
    if {name: tensor_sha256(array) for name, array in sorted(tensors.items())} != manifest[
        "tensors"
    ]:
        raise DamagedError(f"{tensors_path}: its tensors are not those its manifest names")
    return manifest, tensors


def read_manifest(path: Path, kind: Any = manifests.Pair) -> dict[str, Any]:
    """Read and check a manifest alone. Raises `DamagedError`, also when it is not there."""
    try:
        manifest, state = read_edited(path)
    except RunError:
        raise DamagedError(f"{path} is missing") from None
    if state != "intact":
        raise DamagedError(f"{path} is not what was written: its checksum does not fit")
    return dict(manifests.check(manifest, kind, path))


def tensor_sha256(array: "np.ndarray[Any, Any]") -> str:
    """The identity of a tensor: its type, shape and bytes."""
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _finish_swap(manifest_path: Path, tensors_path: Path, beside: Path) -> None:
    """Finish or drop what a kill inside `save_pair` left: it may be the only good copy."""
    blob = _bytes_of(beside)
    if blob is None:
        return
    try:
        needed = _is_named_by(blob, read_manifest(manifest_path))
    except DamagedError:
        needed = False
    try:
        if needed:
            beside.replace(tensors_path)
        else:
            beside.unlink()
    except OSError as error:
        raise write_error(tensors_path, len(blob), error) from error


def _is_named_by(blob: bytes, manifest: Mapping[str, Any]) -> bool:
    named: Mapping[str, Any] = manifest["file"]
    return bool(len(blob) == named["bytes"] and _sha256(blob) == named["sha256"])


def _bytes_of(path: Path, most: int = MOST_BYTES) -> bytes | None:
    try:
        return read_bytes(path, most)
    except (OSError, DamagedError):
        return None


# Libraries: the digest of all before it stands at their end, where no loader looks

MARK = b"\nleancnn-sha256 "
TAIL = len(MARK) + 64 + 1


def sign_library(data: bytes) -> bytes:
    """A built library with its digest at the end; loaders do not mind what stands there."""
    return data + MARK + _sha256(data).encode() + b"\n"


def check_library(path: Path, *, signed: bool = False) -> tuple[bytes, bool]:
    """The bytes of a library, and whether a digest vouches for them.

    One that a user built carries none; it is taken, unless `signed`, if its file ends where an ELF
    file ends. Raises `DamagedError` for a library that is altered or cut, `FileNotFoundError`.
    """
    data = read_bytes(path, MOST_LIBRARY)
    body, tail = data[:-TAIL], data[-TAIL:]
    if tail.startswith(MARK) and tail.endswith(b"\n"):
        if tail != sign_library(body)[len(body) :]:
            raise DamagedError(f"{path} is not what was written; compile the network again")
        return data, True
    if signed or len(data) != _elf_end(data):
        raise DamagedError(f"{path} is altered or cut short; compile the network again")
    return data, False


def _elf_end(data: bytes) -> int:
    """Where an ELF file ends by its own header: behind its section headers. 0 for another file."""
    if len(data) < 64 or data[:4] != b"\x7fELF" or data[4] not in (1, 2) or data[5] not in (1, 2):
        return 0
    order = "<" if data[5] == 1 else ">"
    (start,) = struct.unpack_from(order + "IQ"[data[4] - 1], data, 0x20 if data[4] == 1 else 0x28)
    size, count = struct.unpack_from(f"{order}HH", data, 0x2E if data[4] == 1 else 0x3A)
    return int(start + size * count)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
