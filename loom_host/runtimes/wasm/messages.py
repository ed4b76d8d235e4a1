"""What the fields of a frame mean: one shape for each message.

Kinds of a field: `s` text, `b` bytes, `i` signed 64 bit, `f` double, `j` any JSON value, `p` pairs
of texts, `t` texts. Reading checks every one of them: the other side may be hostile.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any

from loom_sdk.errors import ErrorInfo, LoomError, decode, encode

from .frames import FrameError

_INT, _FLOAT = struct.Struct("<q"), struct.Struct("<d")


def _pairs(data: bytes) -> list[tuple[str, str]]:
    value = json.loads(data)
    if not isinstance(value, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) for x in pair)
        for pair in value
    ):
        raise FrameError("pairs of texts were expected")
    return [(name, text) for name, text in value]


def _texts(data: bytes) -> list[str]:
    value = json.loads(data)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FrameError("texts were expected")
    return value


def _to_json(value: Any) -> bytes:
    return json.dumps(value).encode()


_WRITE: dict[str, Callable[[Any], bytes]] = {
    "s": str.encode,
    "b": bytes,
    "i": _INT.pack,
    "f": _FLOAT.pack,
    "j": _to_json,
    "p": lambda pairs: _to_json(list(pairs)),
    "t": lambda texts: _to_json(list(texts)),
}
_READ: dict[str, Callable[[bytes], Any]] = {
    "s": bytes.decode,
    "b": bytes,
    "i": lambda data: _INT.unpack(data)[0],
    "f": lambda data: _FLOAT.unpack(data)[0],
    "j": json.loads,
    "p": _pairs,
    "t": _texts,
}


class Shape:
    """The fields of one message, by name and kind: `Shape("output:s payload:b")`."""

    def __init__(self, text: str) -> None:
        named = [item.partition(":") for item in text.split()]
        self.names = [name for name, _, _ in named]
        self._write = [_WRITE[kind] for _, _, kind in named]
        self._read = [_READ[kind] for _, _, kind in named]

    def pack(self, *values: Any) -> list[bytes]:
        """Raises ValueError or TypeError for what does not fit, such as a lone surrogate."""
        return [write(value) for write, value in zip(self._write, values, strict=True)]

    def pack_record(self, record: dict[str, Any]) -> list[bytes]:
        return self.pack(*(record[name] for name in self.names))

    def unpack(self, fields: Sequence[bytes]) -> list[Any]:
        """Raises FrameError."""
        try:
            return [read(field) for read, field in zip(self._read, fields, strict=True)]
        except (ValueError, struct.error, RecursionError) as error:
            raise FrameError(f"a field that is not what it should be: {error}") from error

    def unpack_record(self, fields: Sequence[bytes]) -> dict[str, Any]:
        return dict(zip(self.names, self.unpack(fields), strict=True))


NOTHING = Shape("")
EVENT = Shape(
    "id:s type:s timestamp-ms:i source:s metadata:p payload:b confidence:f tags:t priority:i "
    "topic:s traceparent:s delivery-attempt:i"
)
RESULT = Shape("output:s payload:b content-type:s elapsed-us:i")
ITEM = Shape("output:j payload:b content-type:s")
NUMBER, TEXT, JSON = Shape("value:i"), Shape("value:s"), Shape("value:j")

REQUEST = Shape("name:s remaining-us:i elapsed-us:i cpu-s:f traceparent:s fuel:i")
REQUEST_FIELDS = len(REQUEST.names)
"""In front of every request's argument; `elapsed-us` is what the call has taken so far."""
USAGE = Shape("memory:i peak:i starts:i cpu-s:f fuel:i fit:i")
USAGE_FIELDS = len(USAGE.names)
"""In front of every end of a request: bytes, bytes, guests started, seconds and instructions of
this request, whether the guest may serve another."""
ERROR = Shape("code:s message:s details:s")

EXPORTS: dict[str, tuple[Shape, Shape]] = {
    "load": (JSON, JSON),
    "init": (JSON, JSON),
    "invoke": (
        Shape(
            "id:s capability:s version:s arguments:s payload:b content-type:s remaining-ms:i "
            "traceparent:s parent-call-id:s"
        ),
        RESULT,
    ),
    "handle-event": (EVENT, NUMBER),
    "health": (NOTHING, JSON),
    "shutdown": (NOTHING, NOTHING),
}
"""Argument and answer of what the host asks for; `load` is no export but a worker's first task."""

IMPORTS: dict[str, tuple[Shape, Shape]] = {
    "publish": (EVENT, NUMBER),
    "invoke": (
        Shape(
            "capability:s arguments:j payload:b content-type:s id:s version:s remaining-ms:i "
            "traceparent:s"
        ),
        Shape("output:j payload:b content-type:s elapsed-us:i"),
    ),
    "emit": (ITEM, NOTHING),
    "kv-get": (TEXT, Shape("found:i value:b")),
    "kv-put": (Shape("key:s value:b"), NOTHING),
    "kv-delete": (TEXT, NOTHING),
    "kv-list": (TEXT, Shape("keys:t")),
    "http-request": (
        Shape("method:s url:s headers:p body:b timeout-ms:i"),
        Shape("status:i headers:p body:b"),
    ),
    "get-secret": (TEXT, TEXT),
    "sync": (NOTHING, NOTHING),
}
"""Argument and answer of what a worker waits for. `sync` paces a flood of what it does not."""
LOG = Shape("level:s message:s attributes:p")
SPAN = Shape("name:s start-offset-us:i duration-us:i attributes:p error:s")
TELLS = {"log": LOG, "span": SPAN}


def pack_error(error: BaseException) -> list[bytes]:
    info = encode(error)
    return [part.encode("utf-8", "replace") for part in info]


def unpack_error(fields: Sequence[bytes]) -> LoomError:
    """Raises FrameError."""
    return decode(ErrorInfo(*ERROR.unpack(fields)))
