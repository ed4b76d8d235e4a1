// What a capability answers: JSON with binary beside it, in messages bounded by a quota.
import { ActionFailed, QuotaExceeded } from "./errors.js";
import { bytes } from "./events.js";

/** An answer with binary beside its JSON. From `ctx.invoke` it also has `items`, `provider`. */
export class Result {
  constructor(output = null, payload = "", contentType = "") {
    Object.assign(this, { output, payload: bytes(payload), contentType });
    Object.assign(this, { elapsedUs: 0, items: [], provider: "" });
  }
}

/** JSON text of a plugin's value, empty for null. Throws ActionFailed naming `what`. */
export function jsonText(value, what) {
  if (value === null || value === undefined) return "";
  let problem = `a ${typeof value} has no JSON`;
  try {
    const json = JSON.stringify(value);
    if (json !== undefined) return json;
  } catch (error) {
    problem = error.message;
  }
  throw new ActionFailed(
    `${what} is not JSON (${problem}): return strings, numbers, booleans, arrays and objects, ` +
      "and binary as payload of a Result",
    "OUTPUT_NOT_JSON",
  );
}

/** The reverse. Throws ActionFailed naming `what`. */
export function jsonValue(json, what) {
  if (!json) return null;
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new ActionFailed(`${what} is not JSON: ${error.message}`, "OUTPUT_NOT_JSON");
  }
}

/** Counts the bytes of one answer against quota output_bytes; 0 is no limit. */
export class Meter {
  #limit;
  #pluginId;
  #used = 0;

  constructor(limit, pluginId) {
    this.#limit = limit;
    this.#pluginId = pluginId;
  }

  /** Throws QuotaExceeded when the message would be over the quota. */
  add(message) {
    const used = this.#used + Buffer.byteLength(message.output) + message.payload.length;
    if (this.#limit && used > this.#limit) {
      throw new QuotaExceeded(
        `${this.#pluginId}: the answer has ${used} bytes, quota output_bytes is ${this.#limit}: ` +
          "answer in less, or raise the quota in loom.toml",
        { pluginId: this.#pluginId, quota: "output_bytes", limit: this.#limit, used },
      );
    }
    this.#used = used;
  }
}
