// The view of the devices: a drawing of who holds what and who talks with whom, and the same as a table.

import { inOrder, layersOf, memoryOf, stateOf } from "./device_words.js";
import { drawing } from "./drawing.js";
import { h } from "./dom.js";
import { layerStrips } from "./layers.js";
import { count, rate, size, speed } from "./units.js";

export const LABEL = "Devices";
const MAX_EVENTS = 12;
const LONG_ID = /\b([0-9a-f]{8})[0-9a-f]{24,}\b/g; // of a model or a device: its beginning tells it from others

let view = null;

export function open(main) {
  const picture = drawing();
  const strips = h("div", { class: "strips" });
  const table = h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "All figures of the devices" });
  const events = h("ol", { class: "events" });
  const now = h("div", { class: "now", role: "status" });
  view = { picture, strips, table, events, now };
  main.append(h("div", { class: "page" }, h("h1", null, "Devices"), now, picture.element,
    h("section", { "aria-label": "Who holds which layers" }, strips),
    h("section", null, h("h2", null, "All figures"), table),
    h("section", { "aria-label": "What happened" }, h("h2", null, "What happened"), events)));
}

export function close() {
  view.picture.close();
  view = null;
}

export function onState(state) {
  if (!state) return;
  const devices = inOrder(state.devices);
  view.picture.show(devices, state);
  view.strips.replaceChildren(...layerStrips(devices, state.models));
  view.table.replaceChildren(figures(devices, state.models));
  view.events.replaceChildren(...state.events.slice(-MAX_EVENTS).reverse().map(eventLine));
  view.now.replaceChildren(...notices(state));
}

function notices(state) {
  const out = [];
  for (const chat of state.chats.filter((each) => each.phase !== "resting")) {
    const who = chat.devices.length ? ` on ${chat.devices.join(" → ")}` : "";
    out.push(h("p", { class: "notice" }, `An answer is ${chat.phase}: ${count(chat.tokens)} tokens${who}. ${chat.notice}`));
  }
  if (state.discovery && state.discovery !== "switched off") out.push(h("p", { class: "notice bad" }, `Looking for devices: ${state.discovery}`));
  const others = state.other_swarms.filter(Boolean);
  if (others.length) {
    out.push(h("p", { class: "notice" }, `Another swarm is on this network (at ${others[0]}). To enter it: `, h("code", null, "swarm invite"), " there shows a code, ", h("code", null, "swarm join CODE"), " here uses it."));
  }
  if (state.devices.length === 1) {
    out.push(h("p", { class: "notice" }, "This device is alone. ", h("a", { href: "#invite" }, "Invite another one"), ", or see ", h("a", { href: "#plan" }, "what it would bring"), "."));
  }
  return out;
}

function figures(devices, models) {
  const names = new Map(models.map((model) => [model.id, model.name]));
  const heads = ["Device", "State", "Holds", "Memory", "Link", "Reads", "Busy", "Speed"];
  return h("table", { class: "figures-table" },
    h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))),
    h("tbody", null, devices.map((device) => row(device, names))));
}

function row(device, names) {
  const isGone = device.health === "lost";
  const caps = device.capabilities;
  const { used, total } = memoryOf(device);
  const holds = isGone ? [] : (device.shards ?? []).map((shard) => h("div", null, layersOf(shard), h("small", { class: "block" }, names.get(shard.model) ?? "")));
  const link = device.health === "here" ? "this device" : device.rtt_s === null ? "" : `${(device.rtt_s * 1000).toFixed(1)} ms${device.link_bytes_per_s ? `, ${rate(device.link_bytes_per_s)}` : ""}`;
  const cells = [
    [h("span", { class: "swatch", vars: { "--c": `var(--c${device.colour})` } }), device.name, h("small", { class: "block" }, caps ? `${caps.machine}, ${caps.kernels}, ${caps.threads} ${caps.threads === 1 ? "thread" : "threads"}` : "")],
    [stateOf(device), !isGone && device.temperature_c ? h("small", { class: "block" }, `${Math.round(device.temperature_c)} °C`) : null], holds, [total && !isGone ? `${size(used)} of ${size(total)}` : ""], [isGone ? "" : link],
    [caps && !isGone ? rate(caps.read_bytes_per_s) : ""], [isGone ? "" : `${Math.round(device.state.busy * 100)} %`], [isGone ? "" : speed(device.state.tokens_per_s)],
  ];
  return h("tr", { class: isGone ? "gone" : null }, cells.map((cell, i) => (i ? h("td", null, cell) : h("th", { scope: "row" }, cell))));
}

function eventLine(event) {
  const { at, event: what, ...fields } = event;
  const time = new Date(at * 1000);
  const words = Object.entries(fields).map(([name, value]) => `${name} ${String(value).replace(LONG_ID, "$1")}`).join(", ");
  return h("li", null, h("time", { datetime: time.toISOString() }, time.toLocaleTimeString("en-GB")), h("span", null, what.replaceAll("_", " ")), h("span", { class: "soft" }, words));
}
