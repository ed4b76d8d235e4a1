// A Loom plugin in JavaScript from plugin.proto alone, without an SDK: what serving takes.
// What the plugin does is in demo.js.
import grpc from "@grpc/grpc-js";
import * as demo from "./demo.js";
import { LARGE, connect, proto, token } from "./host.js";

let settings; // config, dataDir
const running = new Set(); // ids of the calls being served

const actionError = (error) =>
  error.action ?? { code: error.code?.toString() ?? "CAPABILITY_ERROR", message: `${error}` };

const admitted = (call) => call.metadata.get("loom-token")[0] === token;
const STRANGER = { code: grpc.status.UNAUTHENTICATED, details: "loom-token is missing or wrong" };

function unary(work) {
  return (call, reply) => {
    if (!admitted(call)) reply(STRANGER);
    else work(call.request, call).then((answer) => reply(null, answer), reply);
  };
}

async function init(request) {
  if (!request.api_versions.includes("1")) {
    const message = `this plugin speaks api 1, the host ${request.api_versions}: upgrade the older`;
    return { error: { code: "PROTOCOL_MISMATCH", message } };
  }
  const { config, data_dir: dataDir, host_socket: socket } = request;
  settings = { config: JSON.parse(config), dataDir };
  connect(socket);
  const capabilities = Object.entries(demo.capabilities)
    .map(([name, { effects }]) => ({ name, effects }));
  const meta = { id: request.plugin_id, capabilities, subscriptions: demo.subscriptions };
  return { api_version: "1", meta };
}

// Any number of messages with `item`, then exactly one without.
async function answer(call) {
  const { id, capability, arguments: args } = call.request;
  running.add(id);
  try {
    const { serve } = demo.capabilities[capability];
    const { output = null, ...binary } = await serve(JSON.parse(args), call, settings);
    call.write({ call_id: id, output: JSON.stringify(output), ...binary });
  } catch (error) {
    call.write({ call_id: id, status: "ACTION_ERROR", error: actionError(error) });
  } finally {
    running.delete(id);
  }
  call.end();
}

// The return is the acknowledgement; with an error the event is delivered again or dead-lettered.
async function handleEvent(event) {
  try {
    await demo.heard(event);
    return {};
  } catch (error) {
    return { status: "ACTION_ERROR", error: actionError(error) };
  }
}

async function shutdown() {
  demo.stop(settings);
  setTimeout(() => process.exit(0), 50);
  return {};
}

// A healthy plugin names the calls it is still serving: one that the host gave up must vanish
// from here, or the host ends this process.
const health = async () => ({
  healthy: !settings.config.unwell,
  message: settings.config.unwell || `running:${JSON.stringify([...running])}`,
});

const server = new grpc.Server(LARGE);
server.addService(proto["loom.v1.Plugin"], {
  Init: unary(init),
  HandleEvent: unary(handleEvent),
  Health: unary(health),
  Shutdown: unary(shutdown),
  Invoke: (call) => (admitted(call) ? answer(call) : call.emit("error", STRANGER)),
  // Session stays out: the host then uses the calls above.
});
const { LOOM_SOCKET: socket } = process.env;
server.bindAsync(`unix:${socket}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
});
process.on("SIGTERM", shutdown);
// The host holds the other end of stdin: its end means that the host is gone.
process.stdin.on("end", () => process.exit(1)).resume();
