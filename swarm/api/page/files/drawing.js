// The drawing: each device is a cell of a honeycomb, filled as far as its memory is; lines are links, the thick one is the
// way of a token. It is made anew only when devices or their places change, so that what moves goes on moving.

import { layersOf, memoryOf, stateOf } from "./device_words.js";
import { h, s } from "./dom.js";
import { size, speed } from "./units.js";

const R = 66;  // of a cell, in the drawing's own units
const STEP_X = 210;
const STEP_Y = 196;
const HEX = [0, 1, 2, 3, 4, 5].map((i) => [Math.sin((i * Math.PI) / 3) * R, -Math.cos((i * Math.PI) / 3) * R]);
const OUTLINE = HEX.map(([x, y]) => `${x.toFixed(1)},${y.toFixed(1)}`).join(" ");

/** {element, show(devices, state), close()}. */
export function drawing() {
  const element = h("div", { class: "drawing" });
  let last = null;
  let shape = "";
  let cells = new Map();
  let way = null;
  const show = (devices, state) => {
    last = [devices, state];
    const columns = Math.max(1, Math.min(devices.length, Math.floor((element.clientWidth || 800) / 190)));
    const path = wayOf(devices, state);
    const next = JSON.stringify([columns, devices.map((device) => [device.peer, device.colour, device.health === "lost"]), path]);
    if (next !== shape) {
      shape = next;
      ({ cells, way } = drawn(element, devices, columns, path));
    }
    for (const device of devices) cells.get(device.peer)(device);
    const running = state.chats.some((chat) => chat.phase === "running");
    way?.classList.toggle("flows", running);
  };
  const observer = new ResizeObserver(() => last && show(...last));
  observer.observe(element);
  return { element, show, close: () => observer.disconnect() };
}

/** The devices that a token passes, in order: of the answer that runs, else of the model that most devices hold. */
function wayOf(devices, state) {
  const running = state.chats.find((chat) => chat.phase === "running" && chat.devices.length > 1);
  const byName = new Map(devices.map((device) => [device.name, device.peer]));
  if (running) return running.devices.map((name) => byName.get(name)).filter(Boolean);
  const holders = new Map();
  for (const device of devices) {
    if (device.health !== "lost") for (const shard of device.shards ?? []) holders.set(shard.model, [...(holders.get(shard.model) ?? []), [shard.first, device.peer]]);
  }
  const most = [...holders.values()].sort((a, b) => b.length - a.length)[0] ?? [];
  return most.length > 1 ? most.sort((a, b) => a[0] - b[0]).map(([, peer]) => peer) : [];
}

function drawn(element, devices, columns, path) {
  const rows = Math.ceil(devices.length / columns);
  const shift = rows > 1 && columns > 1 ? STEP_X / 2 : 0;
  const width = columns * STEP_X + shift;
  const height = rows * STEP_Y + 24;
  const places = new Map(devices.map((device, i) => {
    const row = Math.floor(i / columns);
    return [device.peer, [(i % columns) * STEP_X + STEP_X / 2 + (row % 2 ? shift : 0), row * STEP_Y + R + 14]];
  }));
  const made = devices.map((device) => cellOf(device, places.get(device.peer)));
  const steps = path.slice(1).map((peer, i) => lineOf(places.get(path[i]), places.get(peer)));
  const way = steps.length ? s("path", { class: "way", d: steps.join(" ") }) : null;
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "The devices of the swarm; the table below says the same" },
    s("g", { class: "links" }, linksOf(devices, places)), way, made.map(([group]) => group));
  svg.style.maxWidth = `${width}px`;
  element.replaceChildren(svg);
  return { cells: new Map(devices.map((device, i) => [device.peer, made[i][1]])), way };
}

function lineOf([x1, y1], [x2, y2]) {
  return `M${x1} ${y1}L${x2} ${y2}`;
}

/** Measured links, each pair once, with its round trip. */
function linksOf(devices, places) {
  const seen = new Set();
  const out = [];
  const gone = new Set(devices.filter((device) => device.health === "lost").map((device) => device.peer));
  for (const device of devices) {
    for (const link of gone.has(device.peer) ? [] : device.links ?? []) {
      const pair = [device.peer, link.peer].sort().join();
      if (seen.has(pair) || gone.has(link.peer) || !places.has(link.peer)) continue;
      seen.add(pair);
      const [from, to] = [places.get(device.peer), places.get(link.peer)];
      out.push(s("path", { d: lineOf(from, to) }));
      const gap = Math.hypot(from[0] - to[0], from[1] - to[1]);
      if (gap < STEP_X * 1.2) out.push(s("text", { x: (from[0] + to[0]) / 2, y: (from[1] + to[1]) / 2 - 7 }, `${(link.rtt_s * 1000).toFixed(1)} ms`));
    }
  }
  return out;
}

/** A cell and the function that refreshes it. */
function cellOf(device, [x, y]) {
  const clip = `cell-${device.peer}`;
  const level = s("rect", { class: "level", x: -R, width: 2 * R, y: R, height: 2 * R });
  const glow = s("polygon", { class: "glow", points: OUTLINE });
  const [name, memory, holds, doing] = ["name", "inside", "inside small", "doing"].map((kind) => s("text", { class: kind }));
  name.setAttribute("y", R + 22);
  doing.setAttribute("y", R + 40);
  memory.setAttribute("y", -2);
  holds.setAttribute("y", 18);
  const group = s("g", { class: "cell", transform: `translate(${x} ${y})` },
    s("clipPath", { id: clip }, s("polygon", { points: OUTLINE })), glow, s("polygon", { class: "ground", points: OUTLINE }),
    s("g", { "clip-path": `url(#${clip})` }, level),
    s("polygon", { class: "outline", points: OUTLINE }), memory, holds, name, doing);
  group.style.setProperty("--c", `var(--c${device.colour})`);
  const refresh = (now) => {
    const isGone = now.health === "lost";
    const { used, total } = memoryOf(now);
    const share = total && !isGone ? Math.min(used / total, 1) : 0;
    level.style.transform = `translateY(${-2 * R * share}px)`;
    group.classList.toggle("gone", isGone);
    group.classList.toggle("suspect", now.health === "suspect");
    glow.style.opacity = isGone ? 0 : now.state.busy;
    name.textContent = short(now.name, 20) + (now.health === "here" ? " (here)" : "");
    memory.textContent = isGone ? "" : total ? size(total) : "";
    holds.textContent = isGone ? "" : short((now.shards ?? []).map((shard) => layersOf(shard).replace("layers ", "").replace("embedding + ", "in ").replace(" + head", " out")).join(", "), 17);
    const text = now.state.tokens_per_s > 0 && !isGone ? speed(now.state.tokens_per_s) : stateOf(now);
    doing.textContent = short(text, 30);
  };
  return [group, refresh];
}

function short(text, most) {
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
}
