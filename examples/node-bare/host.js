// The messages of plugin.proto, and the host as a plugin without an SDK asks it.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

// `npm run build` copies it into build/; in its sandbox a plugin sees its own folder alone.
const [path] = ["plugin.proto", "build/plugin.proto"]
  .map((place) => fileURLToPath(new URL(place, import.meta.url))).filter(existsSync);
export const proto = loadSync(path, {
  keepCase: true, longs: Number, enums: String, defaults: true,
});
export const LARGE = {
  "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1,
};
export const token = process.env.LOOM_TOKEN;
delete process.env.LOOM_TOKEN; // not for processes that this plugin starts

const Host = grpc.makeGenericClientConstructor(proto["loom.v1.Host"], "Host");
const metadata = new grpc.Metadata();
metadata.set("loom-token", token);
let host;

export function connect(socket) {
  host = new Host(`unix:${socket}`, grpc.credentials.createInsecure(), LARGE);
}

/** One request to the host, given up with `call`; a refusal has its ActionError in `action`. */
export function ask(method, request, call) {
  return new Promise((resolve, reject) => {
    const rpc = host[method](request, metadata, (error, reply) =>
      error ? reject(withAction(error)) : resolve(reply));
    call?.on("cancelled", () => rpc.cancel());
  });
}

/** All messages of a call to another plugin. */
export async function invoke(request, call) {
  const { id: parent_call_id, remaining_ms } = call.request;
  const rpc = host.Invoke({ parent_call_id, remaining_ms, ...request }, metadata);
  call.on("cancelled", () => rpc.cancel());
  try {
    return await rpc.toArray();
  } catch (error) {
    throw withAction(error);
  }
}

function withAction(error) {
  const attached = error.metadata?.get("loom-error-bin")[0];
  if (attached) error.action = proto["loom.v1.ActionError"].deserialize(attached);
  return error;
}
