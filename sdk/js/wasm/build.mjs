// node build.mjs NODE_MODULES SOURCE WIT OUT: a component from a JavaScript module, through
// componentize-js. With these features it would import wasi:http, which the host refuses.
import { writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const [modules, sourcePath, witPath, out] = process.argv.slice(2);
const library = join(modules, "@bytecodealliance/componentize-js/src/componentize.js");
const { componentize } = await import(pathToFileURL(library));
const { component } = await componentize({
  sourcePath,
  witPath,
  worldName: "loom-plugin",
  disableFeatures: ["http", "fetch-event"],
});
await writeFile(out, component);
