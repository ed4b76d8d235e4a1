// Unit conversion as a Loom plugin: the arithmetic is in the files beside this one.
const sdk = await import("#loom-sdk").catch(() => {
  console.error("its packages are missing: run `loom plugin build` with this plugin's folder");
  process.exit(1);
});
const { convert } = await import("./convert.js");
const { UNITS } = await import("./units.js");

const plugin = new sdk.Plugin();

plugin.capability(
  "units.convert", { effects: "none", tool: true, description: "Convert a quantity." },
  ({ question }) => convert(question, plugin.config.digits),
);

plugin.capability("units.list", { effects: "none" }, ({ kind }) => {
  const kinds = {};
  for (const unit of UNITS) {
    const names = unit.names.map((name) => name.replace(/^=/, ""));
    (kinds[unit.kind] ??= []).push([unit.name, ...names].join(", "));
  }
  if (kind === undefined) return { kinds };
  if (kind in kinds) return { kinds: { [kind]: kinds[kind] } };
  const known = Object.keys(kinds).join(", ");
  throw new sdk.ActionFailed(`there is no kind '${kind}'; there are ${known}`, "UNKNOWN_KIND");
});

await plugin.serve();
