// `swarm page` opens this page with a code behind the #, good once and for a minute; it becomes the key of this tab.

import { key, post } from "./node.js";

/** Take the code out of the address, if there is one, and use it. */
export async function enter() {
  const found = /^#enter=([\w-]{10,100})$/.exec(location.hash);
  if (!found) return;
  history.replaceState(null, "", "/#chat");
  try {
    key.set((await post("/swarm/page/enter", { code: found[1] })).key);
  } catch { /* the code was old: the page says how to get another where one is needed */ }
}
