// The test plugin of tests/polyglot in JavaScript.
import { ActionFailed, Result, serve, text } from "./loom.js";

let count = 0;

export const plugin = serve({
  capabilities: {
    "poly.echo": ({ value = null }, ctx) => new Result({ value }, ctx.payload, ctx.contentType),
    "poly.count": () => ++count,
    "poly.fail": ({ code, message }) => {
      throw new ActionFailed(message, code);
    },
    "poly.spin": () => {
      for (;;);
    },
    "poly.log": ({ message }, ctx) => ctx.log(message, "warning"),
    "poly.store": ({ key, value }, ctx) => {
      const had = ctx.kv.get(key) !== undefined;
      ctx.kv.put(key, value);
      const after = text(ctx.kv.get(key));
      const keys = ctx.kv.keys(key);
      ctx.kv.delete(key);
      return { had, after, keys, left: ctx.kv.keys(key).length };
    },
    "poly.stream": ({ items }, ctx) => {
      for (let index = 0; index < items; index++) ctx.emit({ index }, "xxx", "text/plain");
      return "done";
    },
    "poly.nested": ({ name, arguments: args = {} }, ctx) => ctx.invoke(name, args, ctx.payload),
    "poly.config": (_, ctx) => ctx.config,
  },
  events: {
    "room.*": (event, ctx) => {
      if (text(event.payload) === "poison") throw new ActionFailed("will not eat that", "POISONED");
      const metadata = { n: event.metadata.n ?? "", topic: event.topic };
      ctx.publish("notes", "heard", event.payload, { metadata });
    },
  },
});
