// Types of loom.js, the SDK of JavaScript plugins in the wasm tier, for editors and TypeScript.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
/** A text is sent as UTF-8. */
export type Binary = Uint8Array | string;
export type LogLevel = "debug" | "info" | "warning" | "error";

/** An event as a handler gets it. */
export interface Event {
  id: string;
  type: string;
  topic: string;
  payload: Uint8Array;
  metadata: Record<string, string>;
  /** Unix time. */
  timestampMs: bigint;
  /** Who published it; set by the host. */
  source: string;
  confidence: number;
  tags: string[];
  /** 0 to 100, higher first. */
  priority: number;
  traceparent: string;
  /** 1 at the first delivery. */
  deliveryAttempt: number;
}

export interface EventFields {
  metadata?: Record<string, string | number | boolean>;
  tags?: string[];
  priority?: number;
  confidence?: number;
}

export interface HttpResponse {
  status: number;
  headers: { name: string; value: string }[];
  body: Uint8Array;
}

export interface HttpOptions {
  headers?: Record<string, string>;
  body?: Binary;
  timeoutMs?: number;
}

/** An error with a code of the plugin's own; any other exception becomes CAPABILITY_ERROR. */
export class ActionFailed extends Error {
  constructor(message: string, code?: string, details?: string);
  code: string;
  /** JSON text. */
  details: string;
}

/** An answer with binary beside its JSON. */
export class Result<T = Json> {
  constructor(output?: T | null, payload?: Binary, contentType?: string);
  output: T;
  payload: Uint8Array;
  contentType: string;
}

/** The plugin's own storage. */
export interface KeyValue {
  get(key: string): Uint8Array | undefined;
  put(key: string, value: Binary): void;
  delete(key: string): void;
  keys(prefix?: string): string[];
}

/**
 * What a plugin may do while it serves a call or an event. What the host refuses is thrown as
 * `ActionFailed` with the host's code.
 */
export interface Context<Config = Record<string, Json>> {
  readonly pluginId: string;
  /** The settings, checked against `[config]` of plugin.toml. */
  readonly config: Config;
  /** Of the call that is served; empty for an event. */
  readonly callId: string;
  /** Binary that came beside the arguments. */
  readonly payload: Uint8Array;
  readonly contentType: string;
  readonly kv: KeyValue;
  /** Returns how many subscriptions got it. */
  publish(topic: string, type: string, payload?: Binary, fields?: EventFields): number;
  /** Calls a capability of another plugin. */
  invoke<T = Json>(
    capability: string,
    args?: Record<string, unknown>,
    payload?: Binary,
    contentType?: string,
  ): Result<T>;
  /** Sends one item of a streamed answer. */
  emit(output?: unknown, payload?: Binary, contentType?: string): void;
  log(message: string, level?: LogLevel, attributes?: Record<string, unknown>): void;
  secret(name: string): string;
  http(method: string, url: string, options?: HttpOptions): HttpResponse;
}

/** Takes the arguments, which fit the `input` schema of plugin.toml; returns what is JSON. */
export type Capability = (args: any, ctx: Context) => unknown;

export interface Parts {
  /** By name, as in plugin.toml. */
  capabilities?: Record<string, Capability>;
  /** By topic pattern: `*` is one token, `>` the rest. The first that fits gets the event. */
  events?: Record<string, (event: Event, ctx: Context) => void>;
  /** Throwing refuses the start. */
  start?: (ctx: Context) => void;
  stop?: (ctx: Context) => void;
  /** Empty when healthy, else what is wrong. */
  health?: () => string;
}

/** The export that the host calls: `export const plugin = serve({...})`. */
export function serve(parts: Parts): object;

/** Binary of a text; other binary as it is. */
export function bytes(value: Binary): Uint8Array;
/** Text of UTF-8. */
export function text(value: Uint8Array): string;
