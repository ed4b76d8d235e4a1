// Types of loom-sdk, for editors and TypeScript.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type JsonSchema = { [keyword: string]: unknown };
export type Binary = Uint8Array | string;

export interface Event {
  id: string;
  type: string;
  topic: string;
  payload: Buffer;
  metadata: Record<string, string>;
  /** Unix time. */
  timestampMs: number;
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

export interface Item {
  output: any;
  payload: Buffer;
  contentType: string;
  elapsedUs: number;
}

/** An answer with binary beside its JSON. */
export class Result {
  constructor(output?: unknown, payload?: Binary, contentType?: string);
  output: any;
  payload: Buffer;
  contentType: string;
  elapsedUs: number;
  /** What was emitted, in answers of `ctx.invoke`. */
  items: Item[];
  /** Name of the plugin that answered. */
  provider: string;
}

export interface CapabilityOptions {
  description?: string;
  /** Whether an LLM may choose it. */
  tool?: boolean;
  /** `none` and `idempotent` may be repeated by the host; `once`, the default, never is. */
  effects?: "none" | "idempotent" | "once";
  input?: JsonSchema;
  output?: JsonSchema;
  resumable?: boolean;
  version?: string;
}

export interface SubscriptionOptions {
  qos?: keyof typeof QoS;
  types?: string[];
  concurrency?: number;
}

export interface PublishFields {
  metadata?: Record<string, unknown>;
  tags?: string[];
  priority?: number;
  confidence?: number;
  /** `"new"` begins a trace. */
  traceparent?: string;
}

export interface InvokeOptions {
  payload?: Binary;
  contentType?: string;
  timeoutMs?: number;
}

export interface HttpResponse {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
}

/** What a plugin may do while it serves a call or an event. */
export class Context {
  readonly pluginId: string;
  readonly config: Readonly<Record<string, any>>;
  readonly dataDir: string;
  readonly cacheDir: string;
  readonly grants: string[];
  readonly callId: string;
  /** Binary that came beside the arguments. */
  readonly payload: Buffer;
  readonly contentType: string;
  /** Aborts when nobody waits for the answer any more; undefined in `onStart` and `onStop`. */
  readonly signal: AbortSignal | undefined;
  readonly cancelled: boolean;
  remainingMs(): number;
  elapsedUs(): number;
  /** Resolves to how many subscriptions got it. */
  publish(topic: string, type: string, payload?: Binary, fields?: PublishFields): Promise<number>;
  invoke(capability: string, args?: object, options?: InvokeOptions): Promise<Result>;
  stream(capability: string, args?: object, options?: InvokeOptions): AsyncIterable<Item>;
  emit(output?: unknown, payload?: Binary, contentType?: string): Promise<void>;
  log(message: string, level?: "debug" | "info" | "warning" | "error", attributes?: object): void;
  span<T>(name: string, work: () => T | Promise<T>, attributes?: object): Promise<T>;
  secret(name: string): Promise<string>;
  kv: {
    get(key: string): Promise<Buffer | undefined>;
    put(key: string, value: Binary): Promise<void>;
    delete(key: string): Promise<void>;
    keys(prefix?: string): Promise<string[]>;
  };
  http: {
    request(
      method: string,
      url: string,
      options?: { headers?: Record<string, string>; body?: Binary; timeoutMs?: number },
    ): Promise<HttpResponse>;
    /** Throws ActionFailed(HTTP_STATUS) unless the status is 2xx. */
    getJson(url: string): Promise<any>;
  };
}

export type Handler = (args: any, ctx: Context) => unknown;
export type Listener = (event: Event, ctx: Context) => unknown;

export class Plugin {
  config: Readonly<Record<string, any>>;
  capability(name: string, options: CapabilityOptions, handler: Handler): this;
  onEvent(topic: string, handler: Listener): this;
  onEvent(topic: string, options: SubscriptionOptions, handler: Listener): this;
  onStart(work: (ctx: Context) => unknown): this;
  onStop(work: (ctx: Context) => unknown): this;
  health(): string | Promise<string>;
  /** Serve until the host ends this process. */
  serve(): Promise<void>;
}

export const QoS: Readonly<{ realtime: string; batched: string; background: string }>;
export function bytes(value?: Binary): Buffer;
export function text(value: Uint8Array): string;
export function matches(pattern: string, topic: string): boolean;

export interface WireError {
  code: string;
  message: string;
  details: string;
}
export const MAX_DATA: number;
export const TABLE: Map<typeof LoomError, [string, string, string, boolean]>;
export function encode(error: unknown): WireError;
export function decode(error: Partial<WireError>): LoomError;
export function statusOf(error: unknown): string;
export function fromStatus(status: string, text: string): LoomError;

export class LoomError extends Error {
  constructor(message?: string, fields?: object);
  details(): object;
}
export class ConfigError extends LoomError {}
export class ManifestError extends LoomError {}
export class ModelMissing extends LoomError {}
export class PluginError extends LoomError {
  pluginId: string;
}
export class PluginLoadError extends PluginError {}
export class PluginCrashed extends PluginError {}
export class PluginUnhealthy extends PluginError {}
export class ProtocolMismatch extends PluginError {}
export class PermissionDenied extends PluginError {
  permission: string;
}
export class QuotaExceeded extends PluginError {
  quota: string;
  limit: number;
  used: number;
}
export class DeadlineExceeded extends PluginError {}
export class CapabilityError extends LoomError {}
export class CapabilityNotFound extends CapabilityError {}
export class InvalidArguments extends CapabilityError {}
export class ActionFailed extends CapabilityError {
  constructor(message?: string, code?: string, data?: unknown);
  code: string;
  data: any;
}
export class NoProvider extends CapabilityError {}
export class OutcomeUnknown extends CapabilityError {}
export class BusError extends LoomError {}
export class StorageError extends LoomError {}
