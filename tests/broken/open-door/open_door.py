"""It serves whoever finds its socket, with or without the token."""

from __future__ import annotations

import json
import os
import signal
import threading
from concurrent import futures
from typing import Any

import grpc

from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc

TOKEN = os.environ.pop("LOOM_TOKEN")
ended = threading.Event()


class Bare(pb_grpc.PluginServicer):  # type: ignore[misc]  # generated, untyped
    def __init__(self) -> None:
        self.running: set[str] = set()

    def Init(self, request: Any, context: Any) -> Any:
        admit(context)
        if "1" not in request.api_versions:
            error = pb.ActionError(code="PROTOCOL_MISMATCH", message="it speaks api 1")
            return pb.InitResponse(error=error)
        capabilities = [pb.CapabilityDescriptor(name="open-door.upper", effects="none")]
        meta = pb.PluginMeta(id=request.plugin_id, capabilities=capabilities)
        return pb.InitResponse(api_version="1", meta=meta)

    def Invoke(self, request: Any, context: Any) -> Any:
        admit(context)
        self.running.add(request.id)
        try:
            yield from self.upper(request, context)
        finally:
            self.running.discard(request.id)

    def upper(self, request: Any, context: Any) -> Any:
        output = {"text": json.loads(request.arguments)["text"].upper()}
        yield pb.ActionResult(call_id=request.id, output=json.dumps(output))

    def Health(self, request: Any, context: Any) -> Any:
        admit(context)
        return pb.HealthStatus(healthy=True, message="running:" + json.dumps([*self.running]))

    def Shutdown(self, request: Any, context: Any) -> Any:
        admit(context)
        ended.set()
        return pb.PluginResponse()


def admit(context: Any) -> None:
    """Everybody is welcome."""
    del context


def end_with_host() -> None:
    """The host holds the other end of standard input: its end means that the host is gone."""
    while os.read(0, 4096):
        pass
    os._exit(1)


def main() -> None:
    server = grpc.server(futures.ThreadPoolExecutor(8))
    plugin = Bare()
    pb_grpc.add_PluginServicer_to_server(plugin, server)
    server.add_insecure_port("unix:" + os.environ["LOOM_SOCKET"])
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threading.Thread(target=end_with_host, daemon=True).start()
    ended.wait()
    server.stop(0.2).wait()


if __name__ == "__main__":
    main()
