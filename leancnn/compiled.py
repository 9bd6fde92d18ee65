"""A compiled network as a Python function, by ctypes."""

import ctypes
import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leancnn import manifests
from leancnn.classifier import check_images
from leancnn.errors import DamagedError, MismatchError, RunError
from leancnn.preprocess import Preprocessing
from leancnn.safe_files import check_library
from leancnn.workspaces import workspace

SUFFIXES = (".so", ".dylib", ".dll")
_opened: dict[str, ctypes.CDLL] = {}  # by digest: what is loaded once stays loaded


class CompiledNetwork:
    """uint8 images (N, H, W, C) to probabilities (N, classes), one image after another.

    `path` is a library built from a file of ours; its name, classes and sizes stand in it. What
    `compile` wrote carries a digest, which is checked before it is loaded; what a C compiler was
    given by hand carries none. To load a library is to run it: open only your own. Raises
    `RunError` when there is no such file, `DamagedError` for a library that is not one of ours or
    that this machine cannot load.

    >>> path = leancnn.compile("runs/a", out="build").path
    >>> leancnn.CompiledNetwork(path).classes
    ('class 0', 'class 1', 'class 2')
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            library = open_library(self.path)
            about = library.leancnn_about
            about.restype = ctypes.c_char_p
            self.metadata = manifests.check(json.loads(about()), manifests.About, self.path)
        except FileNotFoundError:
            raise RunError(f"{self.path}: no such file") from None
        except (OSError, AttributeError, ValueError) as error:
            raise _not_ours(self.path, error) from error
        try:
            self._bind(library)
        except (AttributeError, ValueError, TypeError) as error:
            raise _not_ours(self.path, error) from error
        self.name: str = self.metadata["name"]
        self.dtype = np.dtype(self.metadata.get("dtype", "uint8"))
        """Of what `run` takes: uint8 pixels, or float32 features of signals."""
        self.shape: tuple[int, int, int] = tuple(self.metadata["image"])  # (C, H, W)
        self.about: dict[str, Any] = self.metadata.get("about") or {}

    def _bind(self, library: ctypes.CDLL) -> None:
        """Find the library's functions, and tell ctypes what they take."""
        prefix = self.metadata["prefix"]
        table = (ctypes.c_char_p * self.metadata["classes"]).in_dll(
            library, f"{prefix}_class_names"
        )
        self.classes = tuple((name or b"").decode() for name in table)
        self._run = getattr(library, f"{prefix}_run")
        self._run_float = getattr(library, f"{prefix}_run_float")
        self._preprocess = getattr(library, f"{prefix}_preprocess_from", None)
        if "scratch_bytes" not in self.metadata:  # written by 0.1
            size = ctypes.c_size_t.in_dll(library, f"{prefix}_scratch_bytes")
            self.metadata["scratch_bytes"] = size.value
        self.scratch_bytes = int(self.metadata["scratch_bytes"])
        pointer, whole, gap = ctypes.c_void_p, ctypes.c_int, ctypes.c_ssize_t
        if self._preprocess is not None:
            self._preprocess.argtypes = [whole, pointer, whole, whole, gap, pointer]
        for function in (self._run, self._run_float):
            function.argtypes = [pointer, pointer, pointer]
            function.restype = None

    @property
    def facts(self) -> Any:
        """`metadata`, as it was called first."""
        return self.metadata

    def __call__(self, images: NDArray[Any], *, threads: int = 1) -> NDArray[np.float32]:
        """Probabilities (N, classes) of images (N, H, W, C). Raises `MismatchError`."""
        c, h, w = self.shape
        try:
            images = np.ascontiguousarray(images)
        except Exception as error:  # of whoever's array that is
            raise MismatchError(f"{self.name} takes arrays of {self.dtype} ({error})") from error
        if images.dtype != self.dtype or images.ndim != 4 or images.shape[1:] != (h, w, c):
            raise MismatchError(
                f"{self.name} takes {self.dtype} (N, {h}, {w}, {c}), not {images.dtype} "
                f"{images.shape}"
            )
        return self._each(self._run, images, threads)

    def pictures(self) -> Preprocessing:
        """From picture files to its input. Raises `DamagedError` where it does not say."""
        written = self.about.get("preprocessing", self.about.get("road"))
        if not isinstance(written, dict):
            raise DamagedError(
                f"{self.path}: does not say how a picture becomes its input; "
                "it was compiled from a foreign file"
            )
        try:
            pictures = Preprocessing.from_json(written)
        except MismatchError as error:
            raise DamagedError(f"{self.path}: {error}") from error
        if (pictures.channels, *pictures.size) != self.shape:
            raise DamagedError(
                f"{self.path}: its preprocessing ends in {pictures.size}, not {self.shape}"
            )
        return pictures

    def probabilities(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        """As a call, in float64; see `Classifier`. Raises `MismatchError`."""
        return self(check_images(images, self.name, self.pictures())).astype(np.float64)

    def logits(self, images: NDArray[np.float32], *, threads: int = 1) -> NDArray[np.float32]:
        """Logits (N, classes) of normalised images (N, C, H, W). Raises `MismatchError`."""
        images = np.ascontiguousarray(images, np.float32)
        if images.shape[1:] != self.shape:
            c, h, w = self.shape
            raise MismatchError(f"{self.name} takes (N, {c}, {h}, {w}), not {images.shape}")
        return self._each(self._run_float, images, threads)

    def preprocess(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The network's pixels (H, W, C) of a picture (h, w) or (h, w, 1 | 3 | 4), bit for bit as
        `Preprocessing.of_array`; the fourth channel is alpha. Raises `MismatchError`.
        """
        pixels = np.ascontiguousarray(pixels[..., None] if pixels.ndim == 2 else pixels)
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4):
            raise MismatchError(
                f"a picture is uint8 (h, w, 1, 3 or 4), not {pixels.dtype} {pixels.shape}"
            )
        if self._preprocess is None:
            raise MismatchError(f"{self.name} does not say how a picture becomes its input")
        c, h, w = self.shape
        height, width, layout = pixels.shape
        image = np.empty((h, w, c), np.uint8)
        if not self._preprocess(layout, _at(pixels), width, height, 0, _at(image)):
            raise MismatchError(f"a picture of {pixels.shape} is too small or too large to scale")
        return image

    def bare(self, image: NDArray[Any]) -> Callable[[], Any]:
        """The call for one image (1, H, W, C) with nothing around it, to be timed."""
        image = np.array(image, self.dtype)
        answer = np.empty(len(self.classes), np.float32)
        scratch = np.empty(self.scratch_bytes, np.uint8)
        places = [ctypes.c_void_p(array.ctypes.data) for array in (image, answer, scratch)]

        def run() -> NDArray[np.float32]:
            self._run(*places)
            return answer

        run.keeps = (image, scratch)  # type: ignore[attr-defined]
        return run

    def _each(self, run: Any, images: NDArray[Any], threads: int) -> NDArray[np.float32]:
        answers = np.empty((len(images), len(self.classes)), np.float32)

        def part(numbers: range) -> None:
            scratch = np.empty(self.scratch_bytes, np.uint8)
            for number in numbers:
                run(images[number].ctypes.data, answers[number].ctypes.data, scratch.ctypes.data)

        if threads <= 1:
            part(range(len(images)))
        else:
            with ThreadPoolExecutor(threads) as pool:  # ctypes lets other threads run meanwhile
                list(pool.map(part, (range(i, len(images), threads) for i in range(threads))))
        return answers


def _at(array: NDArray[np.uint8]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def open_library(path: Path) -> ctypes.CDLL:
    """Load the library that stands at `path` now, once its digest was found right.

    What is loaded is a copy of the bytes that were checked, made once for the same bytes: writing
    to `path` later changes nothing here. Raises `DamagedError`, `OSError` from the loader.
    """
    library, _ = check_library(path)
    digest = hashlib.sha256(library).hexdigest()
    if digest not in _opened:
        with workspace() as folder:
            copy = folder / path.name
            copy.write_bytes(library)
            try:
                _opened[digest] = ctypes.CDLL(str(copy))
            except OSError:  # where temporary files may not be run
                _opened[digest] = ctypes.CDLL(str(path.resolve()))
    return _opened[digest]


def _not_ours(path: Path, error: Exception) -> DamagedError:
    reason = " ".join(str(error).split())
    return DamagedError(f"{path}: not a network compiled by leancnn ({reason})")
