// The conformance plugin of every language, with the JavaScript SDK.
import { writeFileSync } from "node:fs";
import { ActionFailed, Plugin, Result, text } from "#loom-sdk";

const plugin = new Plugin();
const FREE = { effects: "none" };

plugin.onStop((ctx) => writeFileSync(`${ctx.dataDir}/stopped`, ""));
plugin.health = () => plugin.config.unwell;

plugin.capability("demo.echo", FREE, ({ value = null }) => ({ value, config: plugin.config }));

plugin.capability("demo.reverse", FREE, (_, ctx) => {
  const size = ctx.payload.length;
  return new Result({ size }, Buffer.from(ctx.payload).reverse(), ctx.contentType);
});

plugin.capability("demo.count", FREE, async ({ to, size = 1 }, ctx) => {
  for (let index = 0; index < to; index++) {
    await ctx.emit({ index }, "x".repeat(size), "application/octet-stream");
  }
  return { counted: to };
});

plugin.capability("demo.fail", FREE, ({ code, message }) => {
  throw new ActionFailed(message, code);
});

plugin.capability("demo.bug", FREE, () => {
  throw new RangeError("no such thing");
});

plugin.capability("demo.wait", FREE, async (_, ctx) => {
  await new Promise((resolve) => ctx.signal.addEventListener("abort", resolve));
  ctx.log("stopped waiting");
});

plugin.capability("demo.loop", {}, () => {
  for (;;);
});

plugin.capability("demo.exit", {}, ({ code }) => {
  console.log("about to exit");
  process.exit(code);
});

plugin.capability("demo.host", { effects: "idempotent" }, async (_, ctx) => {
  await ctx.kv.put("key", "value");
  await ctx.kv.put("gone", "");
  await ctx.kv.delete("gone");
  await ctx.span("part", () => ctx.log("in the middle", "warning", { step: 2 }), { size: 3 });
  const options = { payload: "in", contentType: "text/plain" };
  const reversed = await ctx.invoke("lab.reverse", {}, options);
  const counted = await ctx.invoke("lab.count", { to: 2 });
  const streamed = [];
  for await (const item of ctx.stream("lab.count", { to: 3 })) streamed.push(item.output);
  const fields = { metadata: { a: "b" }, priority: 7 };
  return {
    missing: (await ctx.kv.get("nothing")) === undefined,
    value: text(await ctx.kv.get("key")),
    keys: await ctx.kv.keys(),
    published: await ctx.publish("notes", "made", "data", fields),
    reversed: [reversed.output, text(reversed.payload), reversed.provider],
    items: counted.items.map((item) => item.output),
    streamed,
    remaining_ms: ctx.remainingMs(),
  };
});

plugin.capability("demo.secret", FREE, async ({ name }, ctx) => ({
  secret: await ctx.secret(name),
}));

plugin.capability("demo.nested", FREE, async (_, ctx) => {
  return (await ctx.invoke("lab.nap", { seconds: 3600 })).output;
});

plugin.capability("demo.environment", FREE, () => Object.keys(process.env).sort());

plugin.onEvent("room.*", async (event, ctx) => {
  const said = text(event.payload);
  if (said === "poison") throw new ActionFailed("will not eat that", "POISONED");
  if (said === "crash" && event.deliveryAttempt === 1) process.exit(9);
  const metadata = { ...event.metadata, topic: event.topic, attempt: event.deliveryAttempt };
  await ctx.publish("notes", "heard", event.payload, { metadata });
});

await plugin.serve();
