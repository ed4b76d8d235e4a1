// What an author writes: a Plugin with capabilities and event handlers.
import { CapabilityNotFound, ManifestError } from "./errors.js";
import { QoS } from "./events.js";
import { matches } from "./topics.js";

const EFFECTS = ["none", "idempotent", "once"];

export class Plugin {
  #capabilities = new Map();
  #subscriptions = [];
  #start = null;
  #stop = null;

  /** The validated settings, filled before `onStart` runs. */
  config = {};

  /**
   * Offer a capability: `handler(args, ctx)` gives its JSON output or a Result.
   * Throws ManifestError for a second one of that name or unknown effects.
   */
  capability(name, options, handler) {
    const { effects = "once", ...rest } = options;
    if (this.#capabilities.has(name)) throw new ManifestError(`${name} is offered twice: rename one`);
    if (!EFFECTS.includes(effects)) {
      throw new ManifestError(`${name}: effects = "${effects}", must be one of ${EFFECTS.join(", ")}`);
    }
    this.#capabilities.set(name, { name, handler, effects, ...rest });
    return this;
  }

  /** Hear a topic pattern: `handler(event, ctx)`; its return is the acknowledgement. */
  onEvent(topic, options, handler) {
    if (typeof options === "function") return this.onEvent(topic, {}, options);
    const { qos = "batched", types = [], concurrency = 1 } = options;
    if (!(qos in QoS)) {
      throw new ManifestError(`${topic}: qos = "${qos}", must be one of ${Object.keys(QoS).join(", ")}`);
    }
    this.#subscriptions.push({ topic, qos: QoS[qos], types, concurrency, handler });
    return this;
  }

  /** Acquire what is needed; throwing refuses the start. */
  onStart(work) {
    this.#start = work;
    return this;
  }

  /** Release it. */
  onStop(work) {
    this.#stop = work;
    return this;
  }

  /** Empty when healthy, else what is wrong. Replace it: `plugin.health = () => "..."`. */
  health() {
    return "";
  }

  /** Serve until the host ends this process. */
  async serve() {
    const { serve } = await import("./server.js");
    await serve(this);
  }

  /** @internal */
  async lifecycle(name, ctx) {
    await { start: this.#start, stop: this.#stop }[name]?.(ctx);
  }

  /** @internal */
  handlerOf(capability, pluginId) {
    const found = this.#capabilities.get(capability);
    if (found) return found.handler;
    throw new CapabilityNotFound(`${pluginId} does not offer '${capability}'`);
  }

  /** @internal The first handler whose pattern and types fit. */
  listenerOf(event, pluginId) {
    const found = this.#subscriptions.find(
      ({ topic, types }) =>
        matches(topic, event.topic) && (types.length === 0 || types.includes(event.type)),
    );
    if (found) return found.handler;
    throw new CapabilityNotFound(`${pluginId} has no handler for ${event.topic}/${event.type}`);
  }

  /** @internal What is declared at Init. */
  meta(pluginId) {
    const schema = (value) => (value === undefined ? "" : JSON.stringify(value));
    const capabilities = [...this.#capabilities.values()].map((spec) => ({
      name: spec.name, description: spec.description ?? "", tool: spec.tool ?? false,
      effects: spec.effects, input_schema: schema(spec.input), output_schema: schema(spec.output),
      resumable: spec.resumable ?? false, version: spec.version ?? "",
    }));
    const subscriptions = this.#subscriptions.map(({ handler: _, ...spec }) => spec);
    return { id: pluginId, capabilities, subscriptions };
  }
}
