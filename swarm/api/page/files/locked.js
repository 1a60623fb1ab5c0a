// What to do where the page may look but not change anything.

import { h } from "./dom.js";
import { key } from "./node.js";

/** A line on how to get the right to change things; null where it is there. */
export function locked(what) {
  if (key.get()) return null;
  return h("p", { class: "notice" }, `To ${what} from here, run `, h("code", null, "swarm page"), " on this device: it opens this page with the right to. ",
    "Other people who use this device cannot.");
}

/** What the node said when it did not do it, as an element. */
export function refusal(error) {
  const isOld = error.status === 403 && key.get();
  if (isOld) key.set("");
  return h("p", { class: "notice bad", role: "alert" }, isOld ? "The node has started anew since; run " : error.message, isOld ? h("code", null, "swarm page") : null, isOld ? " again." : null);
}
