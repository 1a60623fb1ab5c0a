// The devices that work on an answer, in the order in which a token passes them.

import { partOf } from "./device_words.js";
import { h } from "./dom.js";

/** A row of lights while an answer comes; nothing otherwise. */
export function stageLights(state, answer) {
  const chat = state?.chats.find((each) => each.phase === "running" && each.devices.length);
  if (!answer || !chat) return [];
  const stages = chat.devices.map((name, i) => {
    const device = state.devices.find((each) => each.name === name);
    const busy = device?.state?.busy ?? 0;
    const shards = (device?.shards ?? []).filter((shard) => !chat.model || shard.model === chat.model);
    const layers = shards.map((shard) => `${shard.first}–${shard.end - 1}${partOf(shard)}`).join(", ");
    return h("li", { vars: { "--busy": String(busy), "--turn": String(i) } }, h("span", { class: "light", "aria-hidden": "true" }), name, layers ? h("small", null, `layers ${layers}`) : null);
  });
  return [h("ol", { class: "stages", "aria-label": "Devices that work on this answer", vars: { "--n": String(stages.length) } }, stages)];
}
