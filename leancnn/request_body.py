"""The pictures in the body of a request: the body itself, or the files of a form."""

from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

from leancnn.errors import MissingDependencyError

try:
    from python_multipart.exceptions import MultipartParseError
    from starlette.datastructures import Headers
    from starlette.formparsers import MultiPartException, MultiPartParser
except ImportError as error:
    raise MissingDependencyError(
        f"serving needs {error.name}; pip install 'leancnn[serve]'"
    ) from error

T = TypeVar("T")
PICTURES = ("application/octet-stream", "")  # types of a body that is one picture, beside image/…


class RefusedError(Exception):
    """A request that is not answered: its status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def pictures_in(headers: Headers, body: bytes, most: int) -> list[tuple[str, bytes]]:
    """The pictures of a body, each with a name for people. Raises `RefusedError`."""
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind.startswith("image/") or kind in PICTURES:
        if not body:
            raise RefusedError(400, "no picture: the body is empty")
        return [("picture", body)]
    if kind != "multipart/form-data":
        raise RefusedError(415, "a picture as the body, or pictures as multipart/form-data")
    try:
        pictures = _run(_form_files(headers, body, most))
    except (MultiPartException, MultipartParseError, KeyError, UnicodeError) as error:
        raise RefusedError(400, f"no multipart/form-data that can be read ({error})") from None
    if not pictures:
        raise RefusedError(400, "no picture: a part with a file name is one")
    return pictures


class InMemory(MultiPartParser):
    """Files stay in memory, where the body is already, so that nothing is waited for."""

    spool_max_size = 1 << 62


async def _form_files(headers: Headers, body: bytes, most: int) -> list[tuple[str, bytes]]:
    async def whole() -> AsyncGenerator[bytes, None]:
        yield body

    form = await InMemory(headers, whole(), max_files=most, max_fields=most).parse()
    files = [value for _, value in form.multi_items() if not isinstance(value, str)]
    found = [
        (file.filename or f"picture {place}", await file.read())
        for place, file in enumerate(files, 1)
    ]
    await form.close()
    return found


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that waits for nothing returns."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        found: T = done.value
        return found
    raise RuntimeError("it waits")
