"""Files that are whole or refused: written in one step, checked in every byte when read.

Every file appears whole or not at all: a temporary file in the same folder, fsync, rename, fsync of
the folder. A sealed pair is a JSON manifest and a safetensors file; the manifest holds the sha256
of every tensor, of the tensor file and of itself, so that a flipped bit is refused (safetensors
alone loads it silently). No pickle is read.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leancnn.errors import DamagedError, RunError, WriteError

Tensors = dict[str, "np.ndarray[Any, Any]"]

TEMPORARY = re.compile(r"\..+\.[0-9]+\.tmp")  # name and process of a file that is being written
READS = 3  # of a pair, before what does not fit together is called damage
NEXT = ".next"  # a tensor file whose manifest may already be in place


def atomic_write(path: Path, data: bytes) -> None:
    """Write the whole file or leave what stood there.

    A kill leaves at most a `.tmp`, which `runs.sweep` removes.

    Raises `WriteError` with the path and the bytes needed when the disk is full, read-only or
    closed to us.
    """
    try:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise write_error(path, len(data), error) from error
    except ValueError as error:  # such as "." or "/"
        raise WriteError(f"{path} is no name for a file ({error}); choose another") from error


def check_writable(path: Path) -> None:
    """Raises `WriteError` where `atomic_write` would, but for a disk that fills up meanwhile."""
    probe = path.with_name(f".{path.name}.{os.getpid()}.tmp") if path.name else path
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


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote. Raises `DamagedError` for no JSON, `RunError` for no file."""
    try:
        return json.loads(path.read_bytes().decode())
    except FileNotFoundError:
        raise RunError(f"{path}: no such file") from None
    except (ValueError, RecursionError, OSError) as error:
        raise DamagedError(f"{path}: not readable as JSON ({error})") from error


def _dump(value: object) -> str:
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name that is not text, as the system hands it out
        text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    return text


def seal(
    manifest_path: Path, tensors_path: Path, manifest: Mapping[str, Any], tensors: Tensors
) -> None:
    """Write a pair so that at every moment one whole pair, the old or the new, can be read.

    The tensors first go beside their place, then the manifest that names their sha256 replaces the
    old one, then the tensors take their place; `unseal` finds them in either. Raises `WriteError`.
    """
    from safetensors.numpy import save

    beside = tensors_path.with_name(tensors_path.name + NEXT)
    _settle(manifest_path, tensors_path, beside)
    blob = save(
        {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in tensors.items()}
    )
    sealed = {
        **manifest,
        "file": {"name": tensors_path.name, "bytes": len(blob), "sha256": _sha256(blob)},
        "tensors": {name: tensor_sha256(array) for name, array in sorted(tensors.items())},
    }
    sealed["sha256"] = _sha256(_dump(sealed).encode())
    atomic_write(beside, blob)
    write_json(manifest_path, sealed)
    try:
        beside.replace(tensors_path)
    except OSError as error:
        raise write_error(tensors_path, len(blob), error) from error


def unseal(manifest_path: Path, tensors_path: Path) -> tuple[dict[str, Any], Tensors]:
    """Read a sealed pair and check every byte. Raises `DamagedError`: which file, what to do.

    A pair that another process replaces meanwhile is read again.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    places = tensors_path, tensors_path.with_name(tensors_path.name + NEXT)
    for _ in range(READS):
        manifest = read_manifest(manifest_path)
        blob = next((b for b in map(_bytes_of, places) if b and _is_named_by(b, manifest)), None)
        if blob is not None:
            break
    if blob is None:
        found = _bytes_of(tensors_path)
        what = "is missing" if found is None else f"is not what was written ({len(found):,} bytes)"
        raise DamagedError(
            f"{tensors_path} {what}; use another checkpoint, or save or train it again"
        )
    try:
        tensors = load(blob)
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"{tensors_path}: not a safetensors file ({error})") from error
    if {name: tensor_sha256(array) for name, array in sorted(tensors.items())} != manifest[
        "tensors"
    ]:
        raise DamagedError(f"{tensors_path}: its tensors are not those its manifest names")
    return manifest, tensors


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and check a manifest alone. Raises `DamagedError`, also when it is not there."""
    try:
        text = path.read_bytes().decode()
        manifest = json.loads(text)
        written = {key: value for key, value in manifest.items() if key != "sha256"}
        # Comparing the text too catches changes that JSON does not see, such as other white space.
        whole = _dump(manifest) == text and manifest["sha256"] == _sha256(_dump(written).encode())
        whole = whole and {"bytes", "name", "sha256"} == set(manifest["file"])
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise DamagedError(f"{path}: not readable ({error})") from error
    if not whole:
        raise DamagedError(f"{path} is not what was written: its checksum does not fit")
    return dict(manifest)


def tensor_sha256(array: "np.ndarray[Any, Any]") -> str:
    """The identity of a tensor: its type, shape and bytes."""
    head = f"{array.dtype.str} {array.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(array).tobytes()).hexdigest()


def _settle(manifest_path: Path, tensors_path: Path, beside: Path) -> None:
    """Finish or drop what a kill inside `seal` left: it may be the only good copy."""
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


def _bytes_of(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
