// The plugin of server.test.js.
import { spawn } from "node:child_process";
import { Plugin } from "../src/index.js";

const plugin = new Plugin();

plugin.capability("logs", {}, async (_, ctx) => {
  ctx.log("one");
  await ctx.span("part", () => {});
  ctx.log("two");
  return "done";
});
plugin.capability("floods", {}, async (_, ctx) => {
  for (;;) await ctx.emit(null, Buffer.alloc(10_000));
});
plugin.capability("pours", {}, async (_, ctx) => {
  for (let count = 0; count < 1000 && !ctx.cancelled; count++) {
    await ctx.emit(null, Buffer.alloc(1_000_000));
  }
});
plugin.capability("throws", {}, ({ what }) => {
  if (what === "function") return () => {};
  throw { text: "text", null: null, bigint: 1n }[what];
});
plugin.capability("starts", {}, () => spawn("sleep", ["60"], { stdio: "ignore" }).pid);
plugin.capability("blocks", {}, () => {
  for (;;);
});
plugin.onStop(() => new Promise(() => {}));
await plugin.serve();
