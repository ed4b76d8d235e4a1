// What a plugin may do while it serves a call or an event. Every request is checked by the host
// against the plugin's grants and throws PermissionDenied with the line that would allow it.
import { ActionFailed, DeadlineExceeded } from "./errors.js";
import { bytes, texts } from "./events.js";
import { itemMessage } from "./host.js";

const DEFAULT_MS = 30_000;

export class Context {
  #port;
  #call;
  #running;
  #began = performance.now();
  #deadline;
  #traceparent;

  /** `identity`: pluginId, config, dataDir, cacheDir. `call`: an ActionCall or Event, or null. */
  constructor(port, identity, { call = null, event = null, running = null } = {}) {
    Object.assign(this, identity);
    this.#port = port;
    this.#call = call;
    this.#running = running;
    this.#deadline = this.#began + (call ? call.remaining_ms : DEFAULT_MS);
    this.#traceparent = (call ?? event)?.traceparent ?? "";
    this.callId = (call ?? event)?.id ?? "";
    this.payload = call?.payload ?? Buffer.alloc(0);
    this.contentType = call?.content_type ?? "";
  }

  /** Aborts when nobody waits for the answer any more; for fetch, timers and child processes. */
  get signal() {
    return this.#running?.signal;
  }

  get cancelled() {
    return this.signal?.aborted ?? false;
  }

  /** Milliseconds until the host gives up on this call; never below 0. */
  remainingMs() {
    return Math.max(0, Math.trunc(this.#deadline - performance.now()));
  }

  elapsedUs() {
    return Math.trunc((performance.now() - this.#began) * 1000);
  }

  /** Resolves to how many subscriptions got it. */
  async publish(topic, type, payload = "", fields = {}) {
    const { metadata, tags = [], priority = 50, confidence = 1, traceparent } = fields;
    const event = {
      topic, type, payload: bytes(payload), metadata: texts(metadata), tags, priority, confidence,
      timestamp_ms: Date.now(), traceparent: traceparent ?? this.#traceparent,
    };
    return (await this.#ask("Publish", { event, call_id: this.callId })).delivered;
  }

  /** Call a capability of another plugin. `options`: payload, contentType, timeoutMs. */
  async invoke(capability, args = {}, options = {}) {
    return this.#port.invoke(this.#outgoing(capability, args, options), this.signal);
  }

  /** As `invoke`; an async iterator of the items as they come. */
  stream(capability, args = {}, options = {}) {
    return this.#port.stream(this.#outgoing(capability, args, options), this.signal);
  }

  /** Send one item of a streamed answer; resolves when the host has room for more. */
  async emit(output = null, payload = "", contentType = "") {
    const took = this.elapsedUs();
    const message = itemMessage(this.callId, output, bytes(payload), contentType, took);
    if (this.#running?.send) await this.#running.send(message);
    else await this.#ask("Emit", message);
  }

  /** A line in the host's structured log, under this plugin's name and trace. */
  log(message, level = "info", attributes = {}) {
    const record = { level, message: String(message), attributes: texts(attributes) };
    this.#port.record("Log", { ...record, call_id: this.callId });
  }

  /** Measure a part of the work; it shows below this call in the trace. Gives what `work` gives. */
  async span(name, work, attributes = {}) {
    const start = this.elapsedUs();
    let error = "";
    try {
      return await work();
    } catch (raised) {
      error = raised?.name ?? "Error";
      throw raised;
    } finally {
      this.#port.record("Span", {
        call_id: this.callId, name, start_offset_us: start,
        duration_us: this.elapsedUs() - start, attributes: texts(attributes), error,
      });
    }
  }

  async secret(name) {
    return (await this.#ask("GetSecret", { name })).value;
  }

  /** The plugin's own storage: Buffers by key; `get` gives undefined where there is none. */
  kv = {
    get: async (key) => {
      const reply = await this.#ask("KvGet", { key });
      return reply.found ? reply.value : undefined;
    },
    put: async (key, value) => void (await this.#ask("KvPut", { key, value: bytes(value) })),
    delete: async (key) => void (await this.#ask("KvDelete", { key })),
    keys: async (prefix = "") => (await this.#ask("KvList", { key: prefix })).keys,
  };

  /** HTTP through the host, by the plugin's allow-list. */
  http = {
    request: async (method, url, { headers = {}, body = "", timeoutMs } = {}) => {
      const reply = await this.#ask("HttpRequest", {
        method, url, body: bytes(body), call_id: this.callId,
        headers: Object.entries(texts(headers)).map(([name, value]) => ({ name, value })),
        timeout_ms: Math.min(timeoutMs ?? DEFAULT_MS, this.remainingMs() || DEFAULT_MS),
      });
      const given = Object.fromEntries(reply.headers.map(({ name, value }) => [name, value]));
      return { status: reply.status, headers: given, body: reply.body };
    },
    getJson: async (url) => {
      const { status, body } = await this.http.request("GET", url);
      if (status >= 200 && status < 300) return JSON.parse(body.toString());
      throw new ActionFailed(`${url} answered ${status}`, "HTTP_STATUS");
    },
  };

  #ask(method, request) {
    return this.#port.ask(method, request, this.signal);
  }

  #outgoing(capability, args, { payload = "", contentType = "", timeoutMs, id = "" }) {
    let remaining = this.remainingMs();
    if (this.#call && remaining <= 0) {
      throw new DeadlineExceeded(`no time left to invoke ${capability}`, this);
    }
    if (timeoutMs !== undefined) remaining = this.#call ? Math.min(remaining, timeoutMs) : timeoutMs;
    return {
      id, idempotent_id: id !== "", capability, arguments: JSON.stringify(args),
      payload: bytes(payload), content_type: contentType, remaining_ms: remaining || DEFAULT_MS,
      traceparent: this.#traceparent, parent_call_id: this.callId,
    };
  }
}
