// Events as plugins see them, and how a subscription wants them.

/** How a subscription is served, by its name on the wire. */
export const QoS = Object.freeze({
  realtime: "QOS_REALTIME", batched: "QOS_BATCHED", background: "QOS_BACKGROUND",
});

/** An `Event` of the wire with names as JavaScript has them. */
export function eventFromWire(message) {
  return {
    id: message.id,
    type: message.type,
    topic: message.topic,
    payload: message.payload,
    metadata: message.metadata,
    timestampMs: message.timestamp_ms,
    source: message.source,
    confidence: message.confidence,
    tags: message.tags,
    priority: message.priority,
    traceparent: message.traceparent,
    deliveryAttempt: message.delivery_attempt,
  };
}

/** Binary as a Buffer, text as UTF-8. */
export const bytes = (value) =>
  typeof value === "string" ? Buffer.from(value) : Buffer.from(value ?? []);

/** Text of binary that is UTF-8. */
export const text = (value) => Buffer.from(value).toString();

/** The values of an object as strings, which is what metadata and attributes hold. */
export const texts = (object) =>
  Object.fromEntries(Object.entries(object ?? {}).map(([name, value]) => [name, String(value)]));
