// What the plugin does. Messages are those of plugin.proto; `call` is the gRPC call being served.
import { writeFileSync } from "node:fs";
import { ask, invoke } from "./host.js";

export const subscriptions = [{ topic: "room.*", qos: "QOS_BATCHED" }];

export const capabilities = {
  "demo.echo": free(({ value = null }, _, { config }) => ({ output: { value, config } })),
  "demo.reverse": free((_, { request: { payload, content_type } }) => ({
    output: { size: payload.length }, payload: Buffer.from(payload).reverse(), content_type,
  })),
  "demo.count": free(count),
  "demo.fail": free(({ code, message }) => {
    throw { action: { code, message } };
  }),
  "demo.bug": free(() => {
    throw new RangeError("no such thing");
  }),
  "demo.wait": free(async (_, call) => {
    await new Promise((resolve) => call.on("cancelled", resolve));
    await ask("Log", { level: "info", message: "stopped waiting", call_id: call.request.id });
    return {};
  }),
  "demo.loop": { effects: "once", serve: () => { for (;;); } },
  "demo.exit": {
    effects: "once",
    serve: ({ code }) => {
      console.log("about to exit");
      process.exit(code);
    },
  },
  "demo.host": { effects: "idempotent", serve: everything },
  "demo.secret": free(async ({ name }, call) => ({
    output: { secret: (await ask("GetSecret", { name }, call)).value },
  })),
  "demo.nested": free(async (_, call) => {
    const messages = await invoke({ capability: "lab.nap", arguments: '{"seconds": 3600}' }, call);
    return { output: JSON.parse(messages.at(-1).output) };
  }),
  "demo.environment": free(() => ({ output: Object.keys(process.env).sort() })),
};

function free(serve) {
  return { effects: "none", serve };
}

async function count({ to, size = 1 }, call) {
  for (let index = 0; index < to; index++) {
    const room = call.write({
      call_id: call.request.id, item: true, output: JSON.stringify({ index }),
      payload: Buffer.alloc(size, "x"), content_type: "application/octet-stream",
    });
    if (!room) await new Promise((resolve) => call.once("drain", resolve));
  }
  return { output: { counted: to } };
}

// Everything that a plugin may ask of the host, each by its grant.
async function everything(_, call) {
  const { id: call_id, remaining_ms } = call.request;
  await ask("KvPut", { key: "key", value: Buffer.from("value") });
  await ask("KvPut", { key: "gone" });
  await ask("KvDelete", { key: "gone" });
  await ask("Log", { level: "warning", message: "in the middle", call_id });
  await ask("Span", { name: "part", call_id, duration_us: 5 });
  const missing = await ask("KvGet", { key: "nothing" });
  const found = await ask("KvGet", { key: "key" });
  const { keys } = await ask("KvList", { key: "" });
  const event = { topic: "notes", type: "made", payload: Buffer.from("data"), metadata: { a: "b" } };
  const { delivered } = await ask("Publish", { event: { ...event, priority: 7, confidence: 1 }, call_id });
  const payload = Buffer.from("in");
  const [reversed] = await invoke({ capability: "lab.reverse", arguments: "{}", payload }, call);
  const count = { capability: "lab.count" };
  const counted = await invoke({ ...count, arguments: '{"to": 2}' }, call);
  const streamed = await invoke({ ...count, arguments: '{"to": 3}', stream: true }, call);
  return {
    output: {
      missing: !missing.found, value: found.value.toString(), keys, published: delivered,
      reversed: [JSON.parse(reversed.output), reversed.payload.toString(), reversed.provider],
      items: itemsOf(counted), streamed: itemsOf(streamed), remaining_ms,
    },
  };
}

const itemsOf = (messages) =>
  messages.filter(({ item }) => item).map(({ output }) => JSON.parse(output));

export async function heard({ topic, payload, metadata, delivery_attempt }) {
  const said = payload.toString();
  if (said === "poison") throw { action: { code: "POISONED", message: "will not eat that" } };
  if (said === "crash" && delivery_attempt === 1) process.exit(9);
  const told = { ...metadata, topic, attempt: String(delivery_attempt) };
  const note = { topic: "notes", type: "heard", payload, metadata: told };
  await ask("Publish", { event: { ...note, priority: 50, confidence: 1 } });
}

export function stop({ dataDir }) {
  writeFileSync(`${dataDir}/stopped`, "");
}
