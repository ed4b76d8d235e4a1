// Serves `service Plugin` around one Plugin, on the socket that the host names.
import { timingSafeEqual } from "node:crypto";
import grpc from "@grpc/grpc-js";
import { Meter, Result, jsonText } from "./answers.js";
import { endWithHost, residentBytes } from "./child.js";
import { Context } from "./context.js";
import {
  DeadlineExceeded, InvalidArguments, LoomError, ProtocolMismatch, encode, statusOf,
} from "./errors.js";
import { eventFromWire } from "./events.js";
import { HostPort } from "./host.js";
import { OPTIONS, PluginService, TOKEN_KEY } from "./proto.js";

const API_VERSION = "1";
const STOP_MS = 1000;

/** One call or event being served. */
class Running {
  #abort = new AbortController();
  signal = this.#abort.signal;

  cancel() {
    this.#abort.abort();
  }
}

/** An answer: its messages go out one after the other, as fast as the host takes them. */
class Answering extends Running {
  #rpc;
  #meter;

  constructor(rpc, meter) {
    super();
    this.#rpc = rpc;
    this.#meter = meter;
    rpc.on("cancelled", () => this.cancel());
  }

  async send(message) {
    this.#meter.add(message);
    if (this.signal.aborted) throw new DeadlineExceeded("the host cancelled this call");
    if (this.#rpc.write(message)) return;
    await new Promise((resolve) => {
      this.#rpc.once("drain", resolve);
      this.signal.addEventListener("abort", resolve, { once: true });
    });
  }
}

class PluginServer {
  #plugin;
  #token;
  #port;
  #identity = null;
  #quotas = {};
  #running = new Map();

  constructor(plugin, token, hostSocket) {
    this.#plugin = plugin;
    this.#token = Buffer.from(token);
    this.#port = new HostPort(hostSocket, token);
    this.stopped = new Promise((resolve) => {
      this.stopping = resolve;
    });
  }

  /** The methods of `service Plugin`, as grpc-js calls them. */
  handlers() {
    const unary = (work) => (rpc, reply) => {
      const refusal = this.#refusal(rpc, work);
      if (refusal) reply(refusal);
      else work.call(this, rpc.request, rpc).then((answer) => reply(null, answer), reply);
    };
    return {
      Init: unary(this.#init),
      HandleEvent: unary(this.#handleEvent),
      Health: unary(this.#health),
      Shutdown: unary(this.#shutdown),
      Invoke: (rpc) => {
        const refusal = this.#refusal(rpc, this.#invoke);
        if (refusal) rpc.emit("error", refusal);
        else this.#invoke(rpc.request, rpc).catch((error) => rpc.emit("error", error));
      },
      Session: (rpc) =>
        rpc.emit("error", status("UNIMPLEMENTED", "this SDK serves the unary calls")),
    };
  }

  /** Refuses whoever does not present the token, and all but Init and Shutdown before Init. */
  #refusal(rpc, work) {
    const given = Buffer.from(String(rpc.metadata.get(TOKEN_KEY)[0] ?? ""));
    if (given.length !== this.#token.length || !timingSafeEqual(given, this.#token)) {
      return status("UNAUTHENTICATED", `the metadata ${TOKEN_KEY} is missing or wrong`);
    }
    const early = work === this.#init || work === this.#shutdown;
    return early || this.#identity ? null : status("FAILED_PRECONDITION", "call Init first");
  }

  async #init(request) {
    try {
      return await this.#start(request);
    } catch (error) {
      report(error);
      return { error: encode(error) };
    }
  }

  async #start(request) {
    const pluginId = request.plugin_id;
    if (!request.api_versions.includes(API_VERSION)) {
      throw new ProtocolMismatch(
        `${pluginId} speaks api ${API_VERSION}, the host speaks ` +
          `${request.api_versions.join(", ")}: upgrade the older of loom-sdk and loom-host`,
        { pluginId },
      );
    }
    const config = Object.freeze(JSON.parse(request.config || "{}"));
    const { data_dir: dataDir, cache_dir: cacheDir, grants } = request;
    const identity = { pluginId, config, dataDir, cacheDir, grants };
    this.#plugin.config = config;
    this.#quotas = request.quotas;
    await this.#plugin.lifecycle("start", new Context(this.#port, identity));
    await this.#port.flush();
    this.#identity = identity;
    return { api_version: API_VERSION, meta: this.#plugin.meta(pluginId) };
  }

  async #invoke(call, rpc) {
    const began = performance.now();
    const { pluginId } = this.#identity;
    const running = new Answering(rpc, new Meter(this.#quotas.output_bytes ?? 0, pluginId));
    try {
      const answer = await this.#serve(call.id, running, async () => {
        const ctx = new Context(this.#port, this.#identity, { call, running });
        const args = argumentsOf(call);
        return this.#plugin.handlerOf(call.capability, pluginId)(args, ctx);
      });
      await running.send(resultMessage(call.id, answer, elapsed(began)));
    } catch (error) {
      report(error);
      rpc.write({
        call_id: call.id, status: statusOf(error), error: encode(error),
        elapsed_us: elapsed(began),
      });
    }
    rpc.end();
  }

  async #handleEvent(message, rpc) {
    const began = performance.now();
    const running = new Running();
    rpc.on("cancelled", () => running.cancel());
    try {
      await this.#serve(message.id, running, async () => {
        const event = eventFromWire(message);
        const handler = this.#plugin.listenerOf(event, this.#identity.pluginId);
        await handler(event, new Context(this.#port, this.#identity, { event, running }));
      });
      return { elapsed_us: elapsed(began) };
    } catch (error) {
      report(error);
      return { status: statusOf(error), error: encode(error), elapsed_us: elapsed(began) };
    }
  }

  /** The call counts as running until its handler is through, cancelled or not. */
  async #serve(id, running, work) {
    this.#running.set(id, running);
    try {
      return await work();
    } finally {
      this.#running.delete(id);
      await this.#port.flush();
    }
  }

  async #health() {
    let problem;
    try {
      problem = await this.#plugin.health();
    } catch (error) {
      problem = `health() threw ${error?.name}: ${error?.message}`;
    }
    const ids = [...this.#running.keys()];
    const message = problem || (ids.length > 0 ? `running:${JSON.stringify(ids)}` : "");
    return { healthy: !problem, message, memory_bytes: residentBytes() };
  }

  async #shutdown(request) {
    const began = performance.now();
    const error = await this.stop(request.grace_ms);
    const failure = error ? { status: statusOf(error), error: encode(error) } : {};
    return { ...failure, elapsed_us: elapsed(began) };
  }

  /** Run `onStop` for at most `graceMs`, then let the process end; gives what went wrong. */
  async stop(graceMs) {
    let timer;
    const late = new Promise((_, reject) => {
      const problem = new DeadlineExceeded(`onStop took more than ${graceMs} ms`);
      timer = setTimeout(reject, graceMs, problem);
    });
    try {
      const ctx = new Context(this.#port, this.#identity ?? {});
      const work = this.#identity ? this.#plugin.lifecycle("stop", ctx) : null;
      await Promise.race([work, late]);
      return null;
    } catch (error) {
      report(error);
      return error;
    } finally {
      clearTimeout(timer);
      this.stopping();
    }
  }

  async close() {
    await this.#port.flush();
    this.#port.close();
  }
}

function argumentsOf(call) {
  let value;
  try {
    value = JSON.parse(call.arguments || "{}");
  } catch (error) {
    throw new InvalidArguments(`the arguments are not JSON: ${error.message}`);
  }
  if (value !== null && typeof value === "object" && !Array.isArray(value)) return value;
  throw new InvalidArguments("the arguments must be a JSON object");
}

function resultMessage(id, answer, elapsedUs) {
  const { output, payload, contentType } = answer instanceof Result ? answer : new Result(answer);
  return {
    call_id: id, output: jsonText(output, "the result"), payload, content_type: contentType,
    elapsed_us: elapsedUs,
  };
}

const status = (name, details) => ({ code: grpc.status[name], details });
const elapsed = (began) => Math.trunc((performance.now() - began) * 1000);

/** The stack of a bug goes to stderr, which the host logs under the plugin's name. */
function report(error) {
  if (!(error instanceof LoomError)) console.error(error?.stack ?? String(error));
}

/** Serve a Plugin until the host ends this process. */
export async function serve(plugin) {
  const { LOOM_SOCKET: socket, LOOM_TOKEN: token = "", LOOM_HOST_SOCKET: host = "" } = process.env;
  if (!socket) {
    console.error(
      "LOOM_SOCKET is not set: the Loom host starts this program; name the plugin in loom.toml " +
        "and run `loom run`",
    );
    process.exit(1);
  }
  delete process.env.LOOM_TOKEN; // not for processes that the plugin starts
  const served = new PluginServer(plugin, token, host);
  const server = new grpc.Server(OPTIONS);
  server.addService(PluginService, served.handlers());
  await new Promise((resolve, reject) => {
    const credentials = grpc.ServerCredentials.createInsecure();
    server.bindAsync(`unix:${socket}`, credentials, (error) => (error ? reject(error) : resolve()));
  });
  endWithHost(() => served.stop(STOP_MS));
  await served.stopped;
  setTimeout(() => process.exit(0), 100);
  await served.close();
  await new Promise((resolve) => server.tryShutdown(resolve));
  process.exit(0);
}
