import assert from "node:assert/strict";
import { test } from "node:test";
import * as sdk from "../src/index.js";

test("every error of the tree comes back as what it was", () => {
  for (const [kind, [code, status]] of sdk.TABLE) {
    if (kind === sdk.CapabilityError) continue; // shares its code with ActionFailed
    const fields = { pluginId: "a/b", permission: "secrets:x", quota: "memory", limit: 2, used: 3 };
    const error = kind === sdk.ActionFailed ? new kind("why") : new kind("why", fields);
    assert.equal(sdk.statusOf(error), status);
    const wire = sdk.encode(error);
    assert.equal(wire.code, code);
    const back = sdk.decode(wire);
    assert.equal(back.constructor, kind);
    assert.deepEqual({ ...back }, { ...error });
    assert.equal(back.message, "why");
    assert.equal(back.name, kind.name);
  }
});

test("an action's own code and data travel, unless the data is too long or no JSON", () => {
  const back = sdk.decode(sdk.encode(new sdk.ActionFailed("no", "NO_PAPER", { tray: 2 })));
  assert.deepEqual([back.code, back.message, back.data], ["NO_PAPER", "no", { tray: 2 }]);
  const loop = {};
  loop.loop = loop;
  for (const data of ["x".repeat(sdk.MAX_DATA), loop, 1n]) {
    assert.equal(sdk.encode(new sdk.ActionFailed("no", "A", data)).details, "{}");
  }
});

test("what is thrown is always an ActionError", () => {
  assert.equal(sdk.encode(new RangeError("far")).message, "RangeError: far");
  for (const thrown of ["text", null, undefined, 7]) {
    assert.equal(sdk.encode(thrown).code, "CAPABILITY_ERROR");
    assert.equal(sdk.statusOf(thrown), "ACTION_ERROR");
  }
});

test("details that are no object do not matter", () => {
  for (const details of ["", "[", "null", "3"]) {
    assert.equal(sdk.decode({ code: "QUOTA_EXCEEDED", message: "m", details }).limit, 0);
  }
});
