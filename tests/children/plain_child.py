"""A plugin written from plugin.proto alone: grpcio and the generated stubs, no loom_sdk.

argv[1] is the api version that it claims; argv[2], if there, the status that ends a Session.
"""

import json
import os
import signal
import sys
import threading
from concurrent import futures
from typing import Any

import grpc
import plain_pb2 as pb  # type: ignore[import-not-found]
import plain_pb2_grpc as pb_grpc  # type: ignore[import-not-found]

TOKEN = os.environ["LOOM_TOKEN"]
METADATA = (("loom-token", TOKEN),)
done = threading.Event()


class Plain(pb_grpc.PluginServicer):  # type: ignore[misc]
    def Init(self, request: Any, context: Any) -> Any:
        self.host = pb_grpc.HostStub(grpc.insecure_channel("unix:" + request.host_socket))
        shout = pb.CapabilityDescriptor(
            name="plain.shout", effects="none", input_schema='{"type": "object"}'
        )
        heard = pb.SubscriptionDescriptor(topic="plain.*", qos=pb.QOS_BACKGROUND)
        meta = pb.PluginMeta(capabilities=[shout], subscriptions=[heard])
        return pb.InitResponse(api_version=sys.argv[1], meta=meta)

    def Session(self, frames: Any, context: Any) -> Any:
        status = sys.argv[2] if len(sys.argv) > 2 else "UNIMPLEMENTED"
        context.abort(grpc.StatusCode[status], "no Session here")

    def Invoke(self, request: Any, context: Any) -> Any:
        text = json.loads(request.arguments)["text"]
        if text == "status":
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not that word")
        if text == "nested":
            call = pb.ActionCall(id="n1", capability="other.add", arguments="{}")
            answer = list(self.host.Invoke(call, metadata=METADATA))[-1]
            yield pb.ActionResult(output=answer.output)
            return
        if text == "stranger":
            yield self.stranger()
            return
        for letter in text:
            yield pb.ActionResult(output=json.dumps(letter), item=True)
        yield pb.ActionResult(output=json.dumps(text.upper()), payload=request.payload)

    def stranger(self) -> Any:
        try:
            self.host.KvGet(pb.KvRequest(key="x"), metadata=(("loom-token", "guessed"),))
        except grpc.RpcError as error:
            return pb.ActionResult(output=json.dumps(error.code().name))
        return pb.ActionResult(output='"let in"')

    def HandleEvent(self, request: Any, context: Any) -> Any:
        try:
            request.source = "somebody else"
            self.host.Publish(pb.PublishRequest(event=request), metadata=METADATA)
            self.host.GetSecret(pb.SecretRequest(name="forbidden"), metadata=METADATA)
        except grpc.RpcError as error:
            trailing: Any = error.trailing_metadata()
            sent = dict(trailing)["loom-error-bin"]
            refusal = pb.ActionError.FromString(sent)
            return pb.PluginResponse(status=pb.ACTION_ERROR, error=refusal)
        return pb.PluginResponse()

    def Shutdown(self, request: Any, context: Any) -> Any:
        done.set()
        return pb.PluginResponse()


signal.signal(signal.SIGTERM, lambda *_: done.set())
server = grpc.server(futures.ThreadPoolExecutor(4))
pb_grpc.add_PluginServicer_to_server(Plain(), server)
server.add_insecure_port("unix:" + os.environ["LOOM_SOCKET"])
server.start()
while not done.wait(0.05):
    pass
server.stop(0.1).wait()
