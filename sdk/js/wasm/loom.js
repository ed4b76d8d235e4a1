// Loom plugins in JavaScript, for the wasm tier.
//
//     import { serve, ActionFailed } from "./loom.js";
//
//     export const plugin = serve({
//       capabilities: { "greeter.greet": (args, ctx) => ({ greeting: `Hello ${args.name}` }) },
//       events: { "room.*": (event, ctx) => ctx.publish("notes", "heard", event.payload) },
//     });
//
// plugin.toml says tier = "wasm" and entry = "main.js"; `loom plugin build` puts this file beside
// it. A capability returns its JSON output, or a `Result` to send binary beside it. What the host
// refuses is thrown as `ActionFailed` with the host's code.
import * as host from "loom:plugin/host@1.0.0";

const NONE = new Uint8Array();
const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** An error with a code of the plugin's own; any other exception becomes CAPABILITY_ERROR. */
export class ActionFailed extends Error {
  constructor(message, code = "CAPABILITY_ERROR", details = "{}") {
    super(message);
    this.code = code;
    this.details = details;
  }
}

/** An answer with binary beside its JSON. */
export class Result {
  constructor(output = null, payload = NONE, contentType = "") {
    Object.assign(this, { output, payload: bytes(payload), contentType });
  }
}

/** What a plugin may do while it serves a call or an event. */
export class Context {
  constructor(plugin, call = null) {
    this.pluginId = plugin.id;
    this.config = plugin.config;
    this.callId = call?.id ?? "";
    this.payload = call?.payload ?? NONE;
    this.contentType = call?.contentType ?? "";
  }

  /** Returns how many subscriptions got it. `fields`: metadata, tags, priority, confidence. */
  publish(topic, type, payload = NONE, fields = {}) {
    const { metadata = {}, tags = [], priority = 50, confidence = 1 } = fields;
    return asked(() => host.publish({
      id: "", type, timestampMs: 0n, source: "", metadata: pairs(metadata),
      payload: bytes(payload), confidence, tags, priority, topic, traceparent: "",
      deliveryAttempt: 0,
    }));
  }

  /** Calls a capability of another plugin. */
  invoke(capability, args = {}, payload = NONE, contentType = "") {
    const answer = asked(() => host.invoke({
      id: "", capability, version: "", arguments: JSON.stringify(args), payload: bytes(payload),
      contentType, remainingMs: 30000n, traceparent: "", parentCallId: "",
    }));
    return new Result(JSON.parse(answer.output || "null"), answer.payload, answer.contentType);
  }

  /** Sends one item of a streamed answer. */
  emit(output = null, payload = NONE, contentType = "") {
    asked(() => host.emit(JSON.stringify(output), bytes(payload), contentType));
  }

  log(message, level = "info", attributes = {}) {
    host.log(level, message, pairs(attributes));
  }

  secret(name) {
    return asked(() => host.getSecret(name));
  }

  /** Returns { status, headers, body }; `options`: headers, body, timeoutMs. */
  http(method, url, { headers = {}, body = NONE, timeoutMs = 30000 } = {}) {
    const given = pairs(headers).map(([name, value]) => ({ name, value }));
    return asked(() => host.httpRequest({
      method, url, headers: given, body: bytes(body), timeoutMs: BigInt(timeoutMs),
    }));
  }

  /** The plugin's own storage: bytes by key; `get` gives undefined where there is none. */
  kv = {
    get: (key) => asked(() => host.kvGet(key)),
    put: (key, value) => asked(() => host.kvPut(key, bytes(value))),
    delete: (key) => asked(() => host.kvDelete(key)),
    keys: (prefix = "") => asked(() => host.kvList(prefix)),
  };
}

/** Binary of a text, and back. */
export const bytes = (value) => (typeof value === "string" ? encoder.encode(value) : value);
export const text = (value) => decoder.decode(value);

const pairs = (object) => Object.entries(object).map(([name, value]) => [name, String(value)]);

function asked(request) {
  try {
    return request();
  } catch (error) {
    const info = error.payload ?? error;
    if (typeof info?.code !== "string") throw error;
    throw new ActionFailed(info.message, info.code, info.details);
  }
}

/** Runs what the host asked for; whatever is thrown becomes an `action-error`. */
function answered(work) {
  try {
    return work();
  } catch (error) {
    if (error instanceof ActionFailed) {
      throw { code: error.code, message: error.message, details: error.details };
    }
    const traceback = `${error?.name}: ${error?.message}\n${error?.stack ?? ""}`;
    throw {
      code: "CAPABILITY_ERROR",
      message: `${error?.name ?? "Error"}: ${error?.message ?? error}`,
      details: JSON.stringify({ traceback: traceback.slice(-8000) }),
    };
  }
}

/** Topic patterns: `*` is one token, `>` the rest. */
function matches(pattern, topic) {
  const wanted = pattern.split("."), given = topic.split(".");
  const end = wanted.indexOf(">");
  if (end >= 0 ? given.length <= end : given.length !== wanted.length) return false;
  return wanted.slice(0, end < 0 ? undefined : end).every((t, i) => t === "*" || t === given[i]);
}

/** The WIT's `plugin` interface around `{ capabilities, events, start, stop, health }`. */
export function serve({ capabilities = {}, events = {}, start, stop, health }) {
  const self = { id: "", config: {} };
  return {
    init: (request) => answered(() => {
      if (!request.apiVersions.includes("1")) {
        throw new ActionFailed("the plugin speaks api 1 alone: build it anew", "PROTOCOL_MISMATCH");
      }
      Object.assign(self, { id: request.pluginId, config: JSON.parse(request.config || "{}") });
      start?.(new Context(self));
      return { apiVersion: "1", capabilities: [], subscriptions: [] };
    }),
    invoke: (call) => answered(() => {
      const work = capabilities[call.capability];
      if (!work) throw new ActionFailed(`no ${call.capability} here`, "CAPABILITY_NOT_FOUND");
      const began = performance.now();
      const answer = work(JSON.parse(call.arguments || "{}"), new Context(self, call));
      const result = answer instanceof Result ? answer : new Result(answer);
      const { output, payload, contentType } = result;
      const elapsedUs = microseconds(began);
      return { output: JSON.stringify(output ?? null), payload, contentType, elapsedUs };
    }),
    handleEvent: (event) => answered(() => {
      const began = performance.now();
      const found = Object.keys(events).find((pattern) => matches(pattern, event.topic));
      if (found !== undefined) {
        const metadata = Object.fromEntries(event.metadata);
        events[found]({ ...event, metadata }, new Context(self));
      }
      return microseconds(began);
    }),
    health: () => {
      const message = health?.() ?? "";
      return { healthy: message === "", message, memoryBytes: 0n };
    },
    shutdown: () => stop?.(new Context(self)),
  };
}

const microseconds = (began) => BigInt(Math.round((performance.now() - began) * 1000));
