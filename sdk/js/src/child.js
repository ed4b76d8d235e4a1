// This process as a child of the host: it ends with the host and knows its own memory.
import { Worker } from "node:worker_threads";

/** Resident memory of this process in bytes. */
export const residentBytes = () => process.memoryUsage.rss();

// In a thread of its own, because a plugin may block the event loop. The host holds the other end
// of stdin, so its end means that the host is gone: then the whole process group goes too.
const WATCH = `
const { Socket } = require("node:net");
const gone = () => {
  for (const pid of [-process.pid, process.pid]) {
    try { process.kill(pid, "SIGKILL"); } catch { /* not the leader of a group */ }
  }
};
// Not a blocking read, which would hold up the end of the process.
new Socket({ fd: 0, readable: true, writable: false }).on("error", gone).on("end", gone).resume();
`;

/** SIGTERM runs `stop`; the host's death kills this process and those that it started. */
export function endWithHost(stop) {
  process.on("SIGTERM", stop);
  const limits = { maxOldGenerationSizeMb: 8, maxYoungGenerationSizeMb: 2, stackSizeMb: 1 };
  new Worker(WATCH, { eval: true, stdin: false, resourceLimits: limits }).unref();
}
