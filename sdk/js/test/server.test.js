// A plugin in a process of its own, driven through the two sockets as a host does.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

const proto = fileURLToPath(new URL("../../../proto/plugin.proto", import.meta.url));
const definition = loadSync(proto, { keepCase: true, longs: Number, enums: String, defaults: true });
const Client = grpc.makeGenericClientConstructor(definition["loom.v1.Plugin"], "Plugin");
const CHILD = fileURLToPath(new URL("child.js", import.meta.url));

/** A host that notes what it is asked, in order. */
async function listen(address, asked) {
  const note = (name) => (call, reply) => {
    asked.push([name, call.request.message ?? call.request.name ?? ""]);
    setTimeout(() => reply(null, {}), 20);
  };
  const server = new grpc.Server();
  server.addService(definition["loom.v1.Host"], { Log: note("Log"), Span: note("Span") });
  await new Promise((resolve) =>
    server.bindAsync(`unix:${address}`, grpc.ServerCredentials.createInsecure(), resolve));
  return server;
}

async function driven(work, { quotas = {}, detached = false } = {}) {
  const folder = mkdtempSync(join(tmpdir(), "loom-js-"));
  const [socket, hostSocket, asked] = [join(folder, "p"), join(folder, "h"), []];
  const host = await listen(hostSocket, asked);
  const env = { LOOM_SOCKET: socket, LOOM_TOKEN: "t", LOOM_HOST_SOCKET: hostSocket };
  const stdio = ["pipe", "inherit", "ignore"];
  const child = spawn(process.execPath, [CHILD], {
    env: { PATH: process.env.PATH, ...env }, detached, stdio,
  });
  const ended = new Promise((resolve) => child.on("exit", (code, signal) => resolve(signal ?? code)));
  while (!existsSync(socket)) await sleep(5);
  const client = new Client(`unix:${socket}`, grpc.credentials.createInsecure());
  await new Promise((resolve) => client.waitForReady(Date.now() + 10_000, resolve));
  const metadata = new grpc.Metadata();
  metadata.set("loom-token", "t");
  const ask = (method, request) => new Promise((resolve, reject) =>
    client[method](request, metadata, (error, reply) => (error ? reject(error) : resolve(reply))));
  const invoke = (capability, args = {}) => client.Invoke(
    { id: capability, capability, arguments: JSON.stringify(args), remaining_ms: 5000 }, metadata);
  try {
    await ask("Init", { api_versions: ["1"], plugin_id: "a/b", config: "{}", host_socket: hostSocket, quotas });
    await work({ ask, invoke, child, ended, asked, folder });
  } finally {
    client.close();
    child.kill("SIGKILL");
    await ended;
    host.forceShutdown();
    rmSync(folder, { recursive: true });
  }
}

const alive = (pid) => {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
};

test("log lines and spans are with the host before the result", () => driven(async (plugin) => {
  const [result] = await plugin.invoke("logs").toArray();
  assert.equal(result.output, '"done"');
  assert.deepEqual(plugin.asked, [["Log", "one"], ["Span", "part"], ["Log", "two"]]);
}));

test("an answer over the quota is QUOTA_EXCEEDED, not a flood", () => driven(async (plugin) => {
  const messages = await plugin.invoke("floods").toArray();
  const last = messages.at(-1);
  assert.equal(last.error.code, "QUOTA_EXCEEDED");
  assert.equal(JSON.parse(last.error.details).limit, 100_000);
  assert.ok(messages.length <= 11);
}, { quotas: { output_bytes: 100_000 } }));

test("a reader that is slow holds the writer back", () => driven(async (plugin) => {
  const rpc = plugin.invoke("pours");
  await sleep(500);
  const { memory_bytes: memory, message } = await plugin.ask("Health", {});
  assert.equal(message, 'running:["pours"]');
  assert.ok(memory < 250e6, `${memory} bytes`);
  rpc.on("error", () => {});
  rpc.cancel();
  await sleep(50);
  assert.equal((await plugin.ask("Health", {})).message, "");
}));

test("arguments that are no JSON object are refused", () => driven(async (plugin) => {
  for (const args of [[1], 3]) {
    const [result] = await plugin.invoke("logs", args).toArray();
    assert.equal(result.error.code, "INVALID_ARGUMENTS");
  }
}));

test("what a plugin throws is answered, whatever it is", () => driven(async (plugin) => {
  for (const what of ["text", "null", "bigint", "function"]) {
    const [result] = await plugin.invoke("throws", { what }).toArray();
    assert.equal(result.status, "ACTION_ERROR", what);
  }
}));

test("a blocked plugin ends with its host all the same, and what it started too", () => driven(
  async (plugin) => {
    const [result] = await plugin.invoke("starts").toArray();
    const started = JSON.parse(result.output);
    assert.ok(alive(started));
    plugin.invoke("blocks").on("error", () => {});
    await sleep(100);
    plugin.child.stdin.end();
    assert.equal(await plugin.ended, "SIGKILL");
    for (let tries = 0; alive(started) && tries < 100; tries++) await sleep(10);
    assert.ok(!alive(started));
  },
  { detached: true },
));

test("onStop that takes too long is cut off and told", () => driven(async (plugin) => {
  const answer = await plugin.ask("Shutdown", { grace_ms: 100 });
  assert.equal(answer.error.code, "DEADLINE_EXCEEDED");
  assert.equal(await plugin.ended, 0);
}));
