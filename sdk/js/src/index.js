export * from "./errors.js";
export { Result } from "./answers.js";
export { Context } from "./context.js";
export { Plugin } from "./plugin.js";
export { QoS, bytes, text } from "./events.js";
export { matches } from "./topics.js";
