// The view of the models: which can be asked, and on which device how much of each lies.

import { inOrder } from "./device_words.js";
import { h } from "./dom.js";
import { get } from "./node.js";
import { count, size } from "./units.js";

export const LABEL = "Models";

let view = null;
let listed = [];

export function open(main) {
  const list = h("div", { class: "cards" });
  view = { list, state: null };
  main.append(h("div", { class: "page" }, h("h1", null, "Models"),
    h("p", { class: "soft" }, "What can be asked here, and where it lies. To fetch another one: ", h("code", null, "swarm pull NAME"), "; ", h("code", null, "swarm pull"), " alone lists names; ", h("code", null, "swarm rm NAME"), " deletes one."), list));
  refresh();
}

export function close() {
  view = null;
}

export function onState(state) {
  if (!state) return;
  const had = JSON.stringify(view.state?.models);
  view.state = state;
  if (had !== JSON.stringify(state.models)) refresh();
  else show();
}

async function refresh() {
  try {
    listed = (await get("/v1/models")).data;
  } catch { /* the state tells that the node is away */ }
  if (view) show();
}

function show() {
  const devices = inOrder(view.state?.devices ?? []).filter((device) => device.health !== "lost");
  const known = view.state?.models ?? [];
  const ids = new Set(listed.map((model) => model.meta?.swarm_id));
  const cards = [
    ...listed.map((model) => card(model.id, model, known.filter((each) => each.id === model.meta?.swarm_id), devices)),
    ...known.filter((each) => !ids.has(each.id)).map((each) => card(each.name, null, [each], devices)),
  ];
  view.list.replaceChildren(...(cards.length ? cards : [h("p", { class: "soft" }, "There is none yet.")]));
}

function card(name, model, known, devices) {
  const bytes = known[0]?.total_bytes || model?.meta?.size || 0;
  const facts = [size(bytes), model?.context_length ? `context ${count(model.context_length)}` : "", model?.meta?.n_params ? `${(model.meta.n_params / 1e9).toFixed(1)} B parameters` : ""].filter((each) => each && each !== "0");
  const tags = [...(model?.default ? ["default"] : []), ...(model?.capabilities ?? [])];
  const places = devices.map((device) => place(device, (device.models ?? []).filter((each) => known.some((one) => one.id === each.model)))).filter(Boolean);
  return h("article", { class: "card" }, h("header", null, h("h2", null, name)), h("p", { class: "soft" }, facts.join(" · ")),
    tags.length ? h("ul", { class: "tags" }, tags.map((tag) => h("li", null, tag))) : null,
    h("ul", { class: "places" }, places.length ? places : h("li", { class: "soft" }, "as a file of this device, not loaded yet")));
}

function place(device, held) {
  if (!held.length) return null;
  const have = held.reduce((sum, each) => sum + each.n_have, 0);
  const all = held.reduce((sum, each) => sum + each.n_chunks, 0);
  const share = all ? have / all : 0;
  return h("li", null, h("span", null, device.name), h("div", { class: "bar", vars: { "--share": String(share), "--c": `var(--c${device.colour})` } }), h("small", null, share >= 1 ? "all of it" : `${Math.floor(share * 100)} %`));
}
