"""The peer of the grpc tier: a bare grpcio aio server that echoes, run as a child process.

argv: the socket to listen on, the names of modules to import first.
"""

import asyncio
import sys
from importlib import import_module
from typing import Any

import grpc

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))


async def unary(request: bytes, context: Any) -> bytes:
    return request


async def stream(requests: Any, context: Any) -> None:
    while (message := await context.read()) is not grpc.aio.EOF:
        await context.write(message)


async def main(path: str) -> None:
    handlers: Any = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Stream": grpc.stream_stream_rpc_method_handler(stream),
    }
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Echo", handlers),))
    server.add_insecure_port(f"unix:{path}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    for name in sys.argv[2:]:
        import_module(name)
    asyncio.run(main(sys.argv[1]))
