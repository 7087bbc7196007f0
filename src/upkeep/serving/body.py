"""Reading a request's body: bounded, decompressed and in UTF-8."""

import asyncio
import codecs
import re
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from encodings import normalize_encoding
from encodings.aliases import aliases

from anyio import to_thread
from fastapi import Request
from starlette.requests import ClientDisconnect

from upkeep.serving.protocol import Refused, cite

BODY_SECONDS = 60.0
LARGEST_HELD = 4  # bodies of the largest size that may be in memory at once
GZIP, ZLIB = zlib.MAX_WBITS | 16, zlib.MAX_WBITS
CODINGS = {"gzip": GZIP, "x-gzip": GZIP, "deflate": ZLIB}
CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s"';]*)""", re.IGNORECASE)
CHARSETS = {"ascii", "utf_8", "utf_8_sig", "utf_16", "utf_16_le", "utf_16_be", "latin_1", "iso8859_15", "cp1252"}
"""By Python's names. Some other codecs are very slow on some texts, and Python caches every unknown name."""


class Intake:
    """Reads bodies of up to `most` bytes, and holds at most `LARGEST_HELD` times as many of unanswered requests."""

    def __init__(self, most: int) -> None:
        self._most, self._held = most, 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Yield a body, decompressed and in UTF-8, or raise `Refused`; its bytes count until the context ends."""
        sizes: list[int] = []

        def take(size: int) -> None:
            sizes.append(size)
            self._held += size
            if self._held > LARGEST_HELD * self._most:
                raise Refused(429, "too many large requests are under way", "the same again, a little later")

        try:
            body = await _receive(request, self._most, take)
            coding = ", ".join(request.headers.getlist("content-encoding")).strip().lower()
            if coding not in ("", "identity"):
                body = await to_thread.run_sync(_decompress, body, coding, self._most)
                take(len(body))
            charset = _read_charset(request.headers.get("content-type", ""))
            if charset != "utf_8":
                body = await to_thread.run_sync(_recode, body, charset)
            yield body.removeprefix(codecs.BOM_UTF8)
        finally:
            self._held -= sum(sizes)


async def _receive(request: Request, most: int, take: Callable[[int], None]) -> bytes:
    chunks, size = [], 0
    try:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > most:
            raise _too_large(most)
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                size += len(chunk)
                if size > most:
                    raise _too_large(most)
                take(len(chunk))
                chunks.append(chunk)
    except ClientDisconnect as error:  # nobody reads this answer, but it is not counted as the service's fault
        raise Refused(400, "the connection ended before the body did", "the whole body") from error
    except TimeoutError as error:
        raise Refused(408, "the body did not come in time", f"all of it in {BODY_SECONDS:g} s") from error
    return b"".join(chunks)


def _decompress(body: bytes, coding: str, most: int) -> bytes:
    if coding not in CODINGS:
        raise Refused(415, f"the Content-Encoding is {cite(coding)}", "gzip, deflate or none")
    unpacker = zlib.decompressobj(CODINGS[coding])
    try:
        content = unpacker.decompress(body, most + 1)
    except zlib.error as error:
        raise Refused(400, f"the body is not {coding}: {error}", "what its Content-Encoding says") from error
    if len(content) > most:
        raise _too_large(most)
    if not unpacker.eof or unpacker.unused_data:
        raise Refused(400, f"the body is not {coding}: it ends early or late", "one whole part")
    return content


def _too_large(most: int) -> Refused:
    return Refused(413, f"the body is larger than {most} bytes", "fewer machines at a time")


def _read_charset(content_type: str) -> str:
    stated = CHARSET.search(content_type)
    charset = stated[1] if stated else "utf-8"
    name = normalize_encoding(charset.lower())
    if (name := aliases.get(name, name)) not in CHARSETS:
        raise Refused(415, f"the charset of the body is {cite(charset)}", "utf-8, utf-16, latin-1 or windows-1252")
    return name


def _recode(body: bytes, charset: str) -> bytes:
    try:
        return body.decode(charset).encode()
    except UnicodeError as error:
        raise Refused(400, f"the body is not {charset}, as its Content-Type says: {error}", "that charset") from error
