import assert from "node:assert/strict";
import { test } from "node:test";
import { CapabilityNotFound, ManifestError, Plugin, Result, matches } from "../src/index.js";
import { Meter, jsonText } from "../src/answers.js";

test("topics fit patterns as in NATS", () => {
  const fits = [["a", "a"], ["a.*", "a.b"], ["*.b", "a.b"], ["a.>", "a.b"], ["a.>", "a.b.c"], [">", "a"]];
  const not = [["a", "b"], ["a.*", "a"], ["a.*", "a.b.c"], ["a.>", "a"], ["a.b", "a"], ["a", "a.b"]];
  for (const [pattern, topic] of fits) assert.ok(matches(pattern, topic), `${pattern} ${topic}`);
  for (const [pattern, topic] of not) assert.ok(!matches(pattern, topic), `${pattern} ${topic}`);
});

test("a plugin declares what it was given", () => {
  const plugin = new Plugin();
  const input = { type: "object" };
  plugin.capability("a.b", { effects: "none", tool: true, description: "d", input }, () => 1);
  plugin.onEvent("x.*", { qos: "background", types: ["t"], concurrency: 2 }, () => {});
  assert.deepEqual(plugin.meta("p/q"), {
    id: "p/q",
    capabilities: [{
      name: "a.b", description: "d", tool: true, effects: "none", input_schema: '{"type":"object"}',
      output_schema: "", resumable: false, version: "",
    }],
    subscriptions: [{ topic: "x.*", qos: "QOS_BACKGROUND", types: ["t"], concurrency: 2 }],
  });
});

test("mistakes of the author are told at once", () => {
  const plugin = new Plugin().capability("a.b", {}, () => 1);
  assert.throws(() => plugin.capability("a.b", {}, () => 1), ManifestError);
  assert.throws(() => plugin.capability("a.c", { effects: "non" }, () => 1), /none, idempotent/);
  assert.throws(() => plugin.onEvent("a", { qos: "fast" }, () => 1), /realtime, batched/);
  assert.throws(() => plugin.handlerOf("z.z", "p/q"), CapabilityNotFound);
});

test("the first handler whose pattern and types fit hears the event", () => {
  const plugin = new Plugin();
  const [first, second] = [() => 1, () => 2];
  plugin.onEvent("a.*", { types: ["x"] }, first).onEvent("a.>", second);
  assert.equal(plugin.listenerOf({ topic: "a.b", type: "x" }), first);
  assert.equal(plugin.listenerOf({ topic: "a.b", type: "y" }), second);
  assert.throws(() => plugin.listenerOf({ topic: "b", type: "y" }, "p/q"), /no handler for b\/y/);
});

test("only JSON is an answer, and never more than the quota", () => {
  const loop = [];
  loop.push(loop);
  for (const value of [loop, 1n, () => 1, Symbol("s")]) {
    assert.throws(() => jsonText(value, "the result"), { code: "OUTPUT_NOT_JSON" });
  }
  assert.equal(jsonText(undefined, "the result"), "");
  const meter = new Meter(10, "p/q");
  meter.add({ output: "ää", payload: Buffer.alloc(5) });
  assert.throws(() => meter.add({ output: "", payload: Buffer.alloc(2) }), { limit: 10, used: 11 });
  assert.equal(new Result(1, "ä").payload.length, 2);
});
