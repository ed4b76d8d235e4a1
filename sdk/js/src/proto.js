// The messages and services of plugin.proto, which is read at the start: no generated code.
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";

// Beside the package's sources once packed or built, in proto/ in the repository.
const PLACES = ["../plugin.proto", "../../../proto/plugin.proto"];
const path = PLACES.map((place) => fileURLToPath(new URL(place, import.meta.url)))
  .find((candidate) => existsSync(candidate));
if (path === undefined) throw new Error("loom-sdk: plugin.proto is missing: reinstall loom-sdk");

const definition = loadSync(path, {
  keepCase: true, longs: Number, enums: String, defaults: true, arrays: true, objects: true,
});

export const PluginService = definition["loom.v1.Plugin"];
export const ActionErrorType = definition["loom.v1.ActionError"];
export const HostClient = grpc.makeGenericClientConstructor(definition["loom.v1.Host"], "Host");

/** The host bounds sizes by quota; gRPC's own 4 MB would break audio. */
export const OPTIONS = {
  "grpc.max_receive_message_length": -1,
  "grpc.max_send_message_length": -1,
  "grpc.enable_http_proxy": 0,
};
export const TOKEN_KEY = "loom-token";
