import { serve } from "./loom.js";

export const plugin = serve({
  capabilities: { "greeter.greet": ({ name }) => ({ greeting: name }) },
});
