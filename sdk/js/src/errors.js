// Every error that Loom raises, in the tree of loom_sdk.errors, and how one travels.
//
// LoomError
//   ConfigError  ManifestError  ModelMissing
//   PluginError(pluginId)
//     PluginLoadError  PluginCrashed  PluginUnhealthy  ProtocolMismatch
//     PermissionDenied(permission)  QuotaExceeded(quota, limit, used)  DeadlineExceeded
//   CapabilityError
//     CapabilityNotFound  InvalidArguments  ActionFailed(code)  NoProvider  OutcomeUnknown
//   BusError  StorageError

/** Longest `ActionFailed.data`, as JSON text, that travels: an error must fit a frame. */
export const MAX_DATA = 16_384;

/** Root of the tree. `fields` are those of the class: pluginId, permission, quota, limit, used. */
export class LoomError extends Error {
  constructor(message = "", fields = {}) {
    super(message);
    this.name = new.target.name;
    for (const key of Object.keys(new.target.fields ?? {})) {
      this[key] = fields[key] ?? new.target.fields[key];
    }
  }

  /** What, beside the message, must survive the wire. */
  details() {
    const names = Object.keys(this.constructor.fields ?? {});
    return Object.fromEntries(names.map((key) => [WIRE_NAMES[key] ?? key, this[key]]));
  }
}

const WIRE_NAMES = { pluginId: "plugin_id" };

export class ConfigError extends LoomError {}
export class ManifestError extends LoomError {}
export class ModelMissing extends LoomError {}

/** Something about one plugin. */
export class PluginError extends LoomError {
  static fields = { pluginId: "" };
}
export class PluginLoadError extends PluginError {}
export class PluginCrashed extends PluginError {}
export class PluginUnhealthy extends PluginError {}
export class ProtocolMismatch extends PluginError {}

/** The plugin lacks a grant; the message names the line that would allow it. */
export class PermissionDenied extends PluginError {
  static fields = { pluginId: "", permission: "" };
}

/** A limit was hit: `used` is what was measured against `limit`, in the quota's own unit. */
export class QuotaExceeded extends PluginError {
  static fields = { pluginId: "", quota: "", limit: 0, used: 0 };
}
export class DeadlineExceeded extends PluginError {}

/** Something about one invocation. */
export class CapabilityError extends LoomError {}
export class CapabilityNotFound extends CapabilityError {}
export class InvalidArguments extends CapabilityError {}

/** The plugin's own code failed. `data` is any JSON value beside the message. */
export class ActionFailed extends CapabilityError {
  constructor(message = "", code = "CAPABILITY_ERROR", data = undefined) {
    super(message);
    this.code = code;
    this.data = data;
  }

  details() {
    return this.data === undefined || this.data === null ? {} : { data: this.data };
  }
}
export class NoProvider extends CapabilityError {}
export class OutcomeUnknown extends CapabilityError {}
export class BusError extends LoomError {}
export class StorageError extends LoomError {}

// Class to [code, ActionStatus, gRPC status, retryable]: the table of loom_sdk.errors.
export const TABLE = new Map([
  [ConfigError, ["CONFIG_ERROR", "ACTION_ERROR", "FAILED_PRECONDITION", false]],
  [ManifestError, ["MANIFEST_ERROR", "ACTION_ERROR", "FAILED_PRECONDITION", false]],
  [ModelMissing, ["MODEL_MISSING", "ACTION_ERROR", "FAILED_PRECONDITION", false]],
  [PluginError, ["PLUGIN_ERROR", "ACTION_ERROR", "INTERNAL", false]],
  [PluginLoadError, ["PLUGIN_LOAD_ERROR", "ACTION_ERROR", "FAILED_PRECONDITION", false]],
  [PluginCrashed, ["PLUGIN_CRASHED", "ACTION_RETRYABLE", "UNAVAILABLE", true]],
  [PluginUnhealthy, ["PLUGIN_UNHEALTHY", "ACTION_RETRYABLE", "UNAVAILABLE", true]],
  [ProtocolMismatch, ["PROTOCOL_MISMATCH", "ACTION_ERROR", "FAILED_PRECONDITION", false]],
  [PermissionDenied, ["PERMISSION_DENIED", "ACTION_ERROR", "PERMISSION_DENIED", false]],
  [QuotaExceeded, ["QUOTA_EXCEEDED", "ACTION_ERROR", "RESOURCE_EXHAUSTED", false]],
  [DeadlineExceeded, ["DEADLINE_EXCEEDED", "ACTION_TIMEOUT", "DEADLINE_EXCEEDED", false]],
  [CapabilityError, ["CAPABILITY_ERROR", "ACTION_ERROR", "UNKNOWN", false]],
  [CapabilityNotFound, ["CAPABILITY_NOT_FOUND", "ACTION_ERROR", "NOT_FOUND", false]],
  [InvalidArguments, ["INVALID_ARGUMENTS", "ACTION_ERROR", "INVALID_ARGUMENT", false]],
  [ActionFailed, ["CAPABILITY_ERROR", "ACTION_ERROR", "UNKNOWN", false]],
  [NoProvider, ["NO_PROVIDER", "ACTION_RETRYABLE", "UNAVAILABLE", true]],
  [OutcomeUnknown, ["OUTCOME_UNKNOWN", "ACTION_ERROR", "ABORTED", false]],
  [BusError, ["BUS_ERROR", "ACTION_ERROR", "INVALID_ARGUMENT", false]],
  [StorageError, ["STORAGE_ERROR", "ACTION_ERROR", "DATA_LOSS", false]],
  [LoomError, ["LOOM_ERROR", "ACTION_ERROR", "UNKNOWN", false]],
]);

const BY_CODE = new Map(
  [...TABLE].filter(([kind]) => kind !== CapabilityError).map(([kind, row]) => [row[0], kind]),
);

// What a bare gRPC status means when no ActionError came with it.
const BY_STATUS = {
  UNKNOWN: ActionFailed,
  INVALID_ARGUMENT: InvalidArguments,
  DEADLINE_EXCEEDED: DeadlineExceeded,
  NOT_FOUND: CapabilityNotFound,
  ALREADY_EXISTS: ActionFailed,
  PERMISSION_DENIED: PermissionDenied,
  RESOURCE_EXHAUSTED: QuotaExceeded,
  ABORTED: OutcomeUnknown,
  OUT_OF_RANGE: InvalidArguments,
  UNIMPLEMENTED: CapabilityNotFound,
  UNAVAILABLE: PluginUnhealthy,
  CANCELLED: PluginUnhealthy,
  DATA_LOSS: StorageError,
  UNAUTHENTICATED: PermissionDenied,
};

function rowOf(error) {
  for (let kind = error?.constructor; kind; kind = Object.getPrototypeOf(kind)) {
    if (TABLE.has(kind)) return TABLE.get(kind);
  }
  return TABLE.get(ActionFailed);
}

/** Name of the `ActionStatus` of an answer that failed with `error`. */
export const statusOf = (error) => rowOf(error)[1];

/** Any thrown value as an `ActionError`; a foreign one becomes CAPABILITY_ERROR, class named. */
export function encode(error) {
  if (error instanceof ActionFailed) {
    return { code: error.code, message: error.message, details: dataText(error) };
  }
  if (error instanceof LoomError) {
    const details = JSON.stringify(error.details());
    return { code: rowOf(error)[0], message: error.message, details };
  }
  const message = error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  return { code: "CAPABILITY_ERROR", message, details: "{}" };
}

function dataText(error) {
  try {
    const text = JSON.stringify(error.details());
    return text.length <= MAX_DATA ? text : "{}";
  } catch {
    return "{}";
  }
}

/** The reverse of `encode`; a code that is not in the table is a plugin's own. */
export function decode({ code, message, details }) {
  const kind = BY_CODE.get(code || "CAPABILITY_ERROR") ?? ActionFailed;
  const found = objectOf(details);
  if (kind === ActionFailed) return new ActionFailed(message, code || undefined, found.data);
  return new kind(message, { ...found, pluginId: found.plugin_id });
}

/** The error behind a gRPC status name that came without an ActionError. */
export function fromStatus(status, text) {
  const kind = BY_STATUS[status] ?? PluginError;
  return new kind(`${text} (gRPC status ${status})`);
}

function objectOf(text) {
  try {
    const value = JSON.parse(text || "{}");
    return value !== null && typeof value === "object" ? value : {};
  } catch {
    return {};
  }
}
