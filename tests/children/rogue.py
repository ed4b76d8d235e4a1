"""A child that breaks the rules of `service Plugin`, one rule for each MODE in argv[1]."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc

from loom_sdk._proto import plugin_pb2 as pb
from loom_sdk._proto import plugin_pb2_grpc as pb_grpc

MODE = sys.argv[1]


def answer(call_id: str, output: Any) -> bytes:
    result = pb.ActionResult(call_id=call_id, output=json.dumps(output))
    return bytes(pb.PluginFrame(result=result).SerializeToString())


def opened() -> bytes:
    offered = pb.CapabilityDescriptor(name="rogue.do", input_schema='{"type": "object"}')
    who = "somebody/else" if MODE == "another_plugin" else ""
    meta = pb.PluginMeta(id=who, capabilities=[offered])
    init = pb.InitResponse(api_version="2" if MODE == "version" else "1", meta=meta)
    return bytes(pb.PluginFrame(init=init).SerializeToString())


def ask(request: Any) -> bytes:
    return bytes(pb.PluginFrame(call=request).SerializeToString())


async def forged_token() -> str:
    channel = grpc.aio.insecure_channel("unix:" + os.environ["LOOM_HOST_SOCKET"])
    stub: Any = pb_grpc.HostStub(channel)
    try:
        await stub.GetSecret(pb.SecretRequest(name="any"), metadata=(("loom-token", "guess"),))
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "let in"


async def misbehave(call: Any) -> AsyncIterator[bytes]:
    """What is sent instead of an answer, or before it."""
    if MODE == "another_call":
        yield answer("a-call-of-somebody-else", "mine")
    elif MODE == "parent":
        wanted = pb.ActionCall(id="n", capability="other.add", parent_call_id="not-mine")
        yield ask(pb.HostCall(seq=1, invoke=wanted))
    elif MODE == "emit":
        yield ask(pb.HostCall(seq=1, emit=pb.EmitRequest(call_id="not-mine", output="1")))
    elif MODE == "forged_token":
        yield answer(call.id, await forged_token())
    elif MODE == "malformed":
        yield b"\xff\xff\xff\xff no frame"
    elif MODE == "huge":
        yield answer(call.id, "x" * 40_000_000)
    elif MODE == "bad_json":
        result = pb.ActionResult(call_id=call.id, output="{not json")
        yield bytes(pb.PluginFrame(result=result).SerializeToString())
    elif MODE == "floods_items":
        item = pb.ActionResult(call_id=call.id, output="1", item=True)
        while True:
            yield bytes(pb.PluginFrame(result=item).SerializeToString())
    elif MODE == "endless_chunks":
        chunk = pb.ChunkFrame(call_id=call.id, data=bytes(60_000))
        while True:
            yield bytes(pb.PluginFrame(chunk=chunk).SerializeToString())
    elif MODE == "dies_in_call":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif MODE == "stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif MODE == "ends_session":
        raise EOFError


async def session(requests: Any, context: Any) -> AsyncIterator[bytes]:
    async for message in requests:
        for frame in (message, *message.batch):
            kind = frame.WhichOneof("frame")
            if kind == "init":
                if MODE == "dies_in_init":
                    os._exit(9)
                yield opened()
                if MODE == "never_reads":
                    await asyncio.sleep(3600)
            elif kind == "call":
                try:
                    async for sent in misbehave(frame.call):
                        yield sent
                except EOFError:
                    return
            elif kind == "reply":
                yield answer(CALLS[0], frame.reply.error.code)
            elif kind == "health":
                yield bytes(
                    pb.PluginFrame(health=pb.HealthStatus(healthy=True)).SerializeToString()
                )
            if kind == "call":
                CALLS.append(frame.call.id)


CALLS: list[str] = []


async def main() -> None:
    if MODE == "dies_before":
        os._exit(8)
    handler = grpc.stream_stream_rpc_method_handler(
        session, request_deserializer=pb.HostFrame.FromString, response_serializer=bytes
    )
    generic = grpc.method_handlers_generic_handler("loom.v1.Plugin", {"Session": handler})
    server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((generic,))
    server.add_insecure_port("unix:" + os.environ["LOOM_SOCKET"])
    await server.start()
    if MODE == "dies_idle":
        asyncio.get_running_loop().call_later(0.3, os._exit, 7)
    await server.wait_for_termination()


asyncio.run(main())
