"""Its Session serves whoever finds its socket."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc

TOKEN = os.environ.pop("LOOM_TOKEN")
ended = threading.Event()


class Bare(pb_grpc.PluginServicer):  # type: ignore[misc]  # generated, untyped
    def Init(self, request: Any, context: Any) -> Any:
        admit(context)
        return begin(request)

    def Invoke(self, request: Any, context: Any) -> Any:
        admit(context)
        yield from upper(request)

    def Shutdown(self, request: Any, context: Any) -> Any:
        admit(context)
        ended.set()
        return pb.PluginResponse()

    def Session(self, requests: Any, context: Any) -> Iterator[Any]:
        out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=read, args=(requests, out), daemon=True).start()
        yield from iter(out.get, None)


def begin(request: Any) -> Any:
    if "1" not in request.api_versions:
        error = pb.ActionError(code="PROTOCOL_MISMATCH", message="it speaks api 1")
        return pb.InitResponse(error=error)
    capabilities = [pb.CapabilityDescriptor(name="session-open-door.upper", effects="none")]
    meta = pb.PluginMeta(id=request.plugin_id, capabilities=capabilities)
    return pb.InitResponse(api_version="1", meta=meta)


def upper(request: Any) -> Iterator[Any]:
    output = {"text": json.loads(request.arguments)["text"].upper()}
    yield pb.ActionResult(call_id=request.id, output=json.dumps(output))


def read(requests: Any, out: queue.SimpleQueue[Any]) -> None:
    try:
        for message in requests:
            for frame in (message, *message.batch):
                take(frame, out)
    except grpc.RpcError:
        pass
    out.put(None)


def take(frame: Any, out: queue.SimpleQueue[Any]) -> None:
    kind = frame.WhichOneof("frame")
    if kind == "init":
        out.put(pb.PluginFrame(init=begin(frame.init)))
    elif kind == "health":
        out.put(pb.PluginFrame(health=pb.HealthStatus(healthy=True)))
    elif kind == "shutdown":
        out.put(pb.PluginFrame(shutdown=pb.PluginResponse()))
        threading.Timer(0.1, ended.set).start()
    elif kind == "call":
        threading.Thread(target=answer, args=(frame.call, out), daemon=True).start()


def answer(call: Any, out: queue.SimpleQueue[Any]) -> None:
    for result in upper(call):
        out.put(pb.PluginFrame(result=result))


def admit(context: Any) -> None:
    if ("loom-token", TOKEN) not in context.invocation_metadata():
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "the metadata loom-token is wrong")


def end_with_host() -> None:
    """The host holds the other end of standard input: its end means that the host is gone."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    pb_grpc.add_PluginServicer_to_server(Bare(), server)
    server.add_insecure_port("unix:" + os.environ["LOOM_SOCKET"])
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threading.Thread(target=end_with_host, daemon=True).start()
    ended.wait()
    server.stop(0.2).wait()


if __name__ == "__main__":
    main()
