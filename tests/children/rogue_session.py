"""A child that speaks Session by hand, and breaks one rule per capability."""

from __future__ import annotations

import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk.frames import address

out: queue.SimpleQueue[Any] = queue.SimpleQueue()
done = threading.Event()
END = object()


def send(**frame: Any) -> None:
    out.put(pb.PluginFrame(**frame).SerializeToString())


def answer(call_id: str, output: Any = None) -> None:
    send(result=pb.ActionResult(call_id=call_id, output=json.dumps(output)))


def chunk(call_id: str, data: bytes, last: bool = False) -> None:
    send(chunk=pb.ChunkFrame(data=data, last=last, **address(call_id)))


class Rogue:
    """Each method serves the capability `rogue.<its name>`."""

    def __init__(self) -> None:
        self.replies: dict[int, str] = {}
        self.call_id = ""
        self.expected = 0
        self.first = ""

    def honest(self, call: Any) -> None:
        answer(call.id, "well")

    def other_id(self, call: Any) -> None:
        answer("a-call-of-somebody-else", "forged")
        send(ack=pb.AckFrame(seq=4711))
        send(credit=pb.CreditFrame(frames=7, call_id="unknown"))
        send(cancel=pb.CancelFrame(seq=4711))
        chunk("a-call-of-somebody-else", b"forged", last=True)
        answer(call.id, "mine")

    def garbage(self, call: Any) -> None:
        out.put(b"\xff\xfe this is no frame")

    def nothing(self, call: Any) -> None:
        """A frame of a kind that the host does not know, then a good answer."""
        out.put(b"")
        out.put(b"\xa2\x06\x03abc")  # an unknown field
        answer(call.id, "still here")

    def oversize(self, call: Any) -> None:
        send(result=pb.ActionResult(call_id=call.id, payload=bytes(200_000)))

    def oversize_of_other(self, call: Any) -> None:
        send(result=pb.ActionResult(call_id="somebody-else", payload=bytes(200_000)))
        answer(call.id, "unharmed")

    def beyond_credit(self, call: Any) -> None:
        for number in range(200):
            send(result=pb.ActionResult(call_id=call.id, item=True, output=str(number)))

    def mixed_chunks(self, call: Any) -> None:
        result = pb.ActionResult(call_id="somebody-else", output='"forged"')
        frame = pb.PluginFrame(result=result).SerializeToString()
        chunk(call.id, frame[:5])
        chunk(call.id, frame[5:], last=True)

    def chunks_of_garbage(self, call: Any) -> None:
        chunk(call.id, b"\xff\xff\xff", last=True)

    def endless_chunks(self, call: Any) -> None:
        for _ in range(40):
            chunk(call.id, bytes(60_000))

    def twice(self, call: Any) -> None:
        answer(call.id, "once")
        answer(call.id, "twice")

    def waits(self, call: Any) -> None:
        """Answers nothing, until a later call says so."""
        self.first = call.id

    def out_of_order(self, call: Any) -> None:
        answer(call.id, "second")
        answer(self.first, "first")

    def forged_parent(self, call: Any) -> None:
        nested = pb.ActionCall(capability="other.add", arguments="{}", parent_call_id="not-mine")
        event = pb.Event(topic="t", type="x")
        item = pb.EmitRequest(call_id="not-mine", output="1")
        self.ask(call, invoke=nested)
        self.ask(call, publish=pb.PublishRequest(event=event, call_id="not-mine"))
        self.ask(call, http_request=pb.HttpCall(method="GET", url="x", call_id="not-mine"))
        self.ask(call, emit=item)

    def flood(self, call: Any) -> None:
        """More host calls at once than are allowed; each waits for ever but those refused."""
        for _ in range(70):
            self.ask(call, invoke=pb.ActionCall(capability="other.slow", arguments="{}"))
        self.expected = 6

    def senseless(self, call: Any) -> None:
        send(call=pb.HostCall(seq=0, get_secret=pb.SecretRequest(name="x")))
        send(call=pb.HostCall(seq=5))
        answer(call.id, "ignored")

    def ends(self, call: Any) -> None:
        out.put(END)

    def deaf(self, call: Any) -> None:
        """Reads nothing more, and asks without end."""
        for number in range(1, 3000):
            send(call=pb.HostCall(seq=number, kv_get=pb.KvRequest(key="large")))
        threading.Event().wait()

    def ask(self, call: Any, **request: Any) -> None:
        self.call_id, self.expected = call.id, self.expected + 1
        send(call=pb.HostCall(seq=self.expected, **request))

    def on_reply(self, reply: Any) -> None:
        self.replies[reply.seq] = reply.error.code
        if len(self.replies) == self.expected:
            answer(self.call_id, sorted(self.replies.values()))

    def read(self, requests: Iterator[bytes]) -> None:
        for message in requests:
            frame = pb.HostFrame.FromString(message)
            self.take(frame)
            for more in frame.batch:
                self.take(more)

    def take(self, frame: Any) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "init":
            send(init=pb.InitResponse(api_version=sys.argv[1], meta=pb.PluginMeta()))
        elif kind == "call":
            getattr(self, frame.call.capability.removeprefix("rogue."))(frame.call)
        elif kind == "health":
            send(health=pb.HealthStatus(healthy=True))
        elif kind == "reply":
            self.on_reply(frame.reply)
        elif kind == "cancel":
            answer(frame.cancel.call_id)
        elif kind == "shutdown":
            done.set()


def session(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    reader = threading.Thread(target=Rogue().read, args=(requests,), daemon=True)
    reader.start()
    while (frame := out.get()) is not END:
        yield frame


signal.signal(signal.SIGTERM, lambda *_: done.set())
server = grpc.server(futures.ThreadPoolExecutor(4))
handlers: Any = {"Session": grpc.stream_stream_rpc_method_handler(session)}
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("loom.v1.Plugin", handlers),))
server.add_insecure_port("unix:" + os.environ["LOOM_SOCKET"])
server.start()
while not done.wait(0.02):
    pass
os._exit(0)
