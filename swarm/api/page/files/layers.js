// Who holds which layers, as a strip for each model.

import { partOf } from "./device_words.js";
import { h } from "./dom.js";
import { size } from "./units.js";

/** A strip for each model of which a device holds something; `devices` have a colour. */
export function layerStrips(devices, models) {
  const held = new Map();
  for (const device of devices) {
    if (device.health === "lost") continue;
    for (const shard of device.shards ?? []) held.set(shard.model, [...(held.get(shard.model) ?? []), { device, shard }]);
  }
  return [...held].map(([id, holders]) => {
    const model = models.find((each) => each.id === id);
    const name = model?.name ?? (id ? id.slice(0, 8) : "a model");
    return h("figure", { class: "strip-of" }, h("figcaption", null, h("strong", null, name), model ? h("small", null, ` ${size(model.total_bytes)}`) : null),
      strip(holders.map(({ device, shard }) => ({ name: device.name, colour: device.colour, first: shard.first, end: shard.end, embed: shard.embed, head: shard.head, share: shard.share }))));
  });
}

/** Segments from left to right, in as many rows as devices share the same layers. */
export function strip(segments) {
  const layers = Math.max(...segments.map((segment) => segment.end), 1);
  const rows = [];
  for (const segment of [...segments].sort((a, b) => a.first - b.first)) {
    const row = rows.find((each) => each.at(-1).end <= segment.first);
    if (row) row.push(segment);
    else rows.push([segment]);
  }
  const text = segments.map((segment) => `${segment.name}: layers ${segment.first} to ${segment.end - 1}${partOf(segment)}`).join("; ");
  return h("div", { class: "strip", role: "img", "aria-label": text }, rows.map((row) => h("div", { class: "strip-row" }, row.map((segment) => h("span", {
    class: "segment", title: `${segment.name}: layers ${segment.first}–${segment.end - 1}${partOf(segment)}`,
    vars: { "--c": `var(--c${segment.colour})`, "--from": String(segment.first / layers), "--width": String((segment.end - segment.first) / layers) },
  }, h("b", null, segment.name), h("i", null, `${segment.embed ? "in · " : ""}${segment.first}–${segment.end - 1}${segment.head ? " · out" : ""}${partOf(segment)}`))))));
}
