// `service Host` as contexts see it: every request carries the token, every refusal is typed.
import grpc from "@grpc/grpc-js";
import { Result, jsonText, jsonValue } from "./answers.js";
import { DeadlineExceeded, PluginError, decode, fromStatus } from "./errors.js";
import { ActionErrorType, HostClient, OPTIONS, TOKEN_KEY } from "./proto.js";

/** Log lines and spans that may wait for the host; more are dropped and counted. */
const MAX_RECORDS = 1024;

/** The error that the host raised. */
function hostError(error) {
  const attached = error.metadata?.get("loom-error-bin")[0];
  if (attached) return decode(ActionErrorType.deserialize(attached));
  return fromStatus(grpc.status[error.code], `the host: ${error.details}`);
}

const cancelled = () => new DeadlineExceeded("the host cancelled this call");

/** One connection to the host, opened at first use. */
export class HostPort {
  #address;
  #client = null;
  #metadata = new grpc.Metadata();
  #records = [];
  #dropped = 0;
  #sending = null;

  constructor(address, token) {
    this.#address = address;
    this.#metadata.set(TOKEN_KEY, token);
  }

  #connection() {
    this.#client ??= new HostClient(
      `unix:${this.#address}`, grpc.credentials.createInsecure(), OPTIONS,
    );
    return this.#client;
  }

  /** One unary request, given up when `signal` aborts. */
  ask(method, request, signal) {
    if (signal?.aborted) return Promise.reject(cancelled());
    return new Promise((resolve, reject) => {
      const rpc = this.#connection()[method](request, this.#metadata, (error, reply) => {
        signal?.removeEventListener("abort", abort);
        if (error) reject(signal?.aborted ? cancelled() : hostError(error));
        else resolve(reply);
      });
      const abort = () => rpc.cancel();
      signal?.addEventListener("abort", abort);
    });
  }

  /** Messages of a call to another plugin, as they come. */
  async *messages(request, signal) {
    if (signal?.aborted) throw cancelled();
    const rpc = this.#connection().Invoke(request, this.#metadata);
    const abort = () => rpc.cancel();
    signal?.addEventListener("abort", abort);
    try {
      yield* rpc;
    } catch (error) {
      throw signal?.aborted ? cancelled() : hostError(error);
    } finally {
      signal?.removeEventListener("abort", abort);
      rpc.cancel();
    }
  }

  /** The whole answer of another plugin, its items in `items`. */
  async invoke(request, signal) {
    const items = [];
    for await (const message of this.messages(request, signal)) {
      if (!message.item) return Object.assign(resultOf(message), { items });
      items.push(itemOf(message));
    }
    throw new PluginError(`the host ended ${request.capability} without a result`);
  }

  async *stream(request, signal) {
    for await (const message of this.messages({ ...request, stream: true }, signal)) {
      if (message.item) yield itemOf(message);
      else resultOf(message);
    }
  }

  /** A log line or a span: sent in order, in the background. */
  record(method, message) {
    if (this.#records.length >= MAX_RECORDS) this.#dropped += 1;
    else this.#records.push([method, message]);
    this.#sending ??= this.#send();
  }

  async #send() {
    try {
      while (this.#records.length > 0 || this.#dropped > 0) {
        if (this.#records.length === 0) this.#records.push(["Log", this.#loss()]);
        await this.ask(...this.#records.shift());
      }
    } catch {
      this.#records.length = 0; // the host is gone or refuses this plugin's logs
    } finally {
      this.#sending = null;
    }
  }

  #loss() {
    const message = `${this.#dropped} log lines or spans came too fast and were dropped`;
    this.#dropped = 0;
    return { level: "warning", message };
  }

  /** Wait until the host has the log lines and spans, so that they precede the result. */
  flush() {
    return this.#sending ?? Promise.resolve();
  }

  close() {
    this.#client?.close();
  }
}

function itemOf(message) {
  const { payload, content_type: contentType, elapsed_us: elapsedUs } = message;
  return { output: jsonValue(message.output, "an emitted item"), payload, contentType, elapsedUs };
}

function resultOf(message) {
  if (message.status !== "ACTION_OK" || message.error) throw decode(message.error ?? {});
  const output = jsonValue(message.output, "the result");
  const result = new Result(output, message.payload, message.content_type);
  return Object.assign(result, { elapsedUs: message.elapsed_us, provider: message.provider });
}

/** The item of an answer being made, for `Emit` and for the answer's own stream. */
export const itemMessage = (callId, output, payload, contentType, elapsedUs) => ({
  call_id: callId, output: jsonText(output, "an emitted item"), payload,
  content_type: contentType, item: true, elapsed_us: elapsedUs,
});
