// The view of the models: which can be asked, and on which device how much of each lies.

import { inOrder } from "./device_words.js";
import { h, say } from "./dom.js";
import { locked, refusal } from "./locked.js";
import { get, key, post } from "./node.js";
import { count, size } from "./units.js";

export const LABEL = "Models";

let view = null;
let listed = [];

export function open(main) {
  const list = h("div", { class: "cards" });
  const told = h("div", { class: "now" });
  view = { list, told, state: null };
  main.append(h("div", { class: "page" }, h("h1", null, "Models"),
    h("p", { class: "soft" }, "What can be asked here, and where it lies. ", h("code", null, "swarm pull"), " lists names of others; ", h("code", null, "swarm rm NAME"), " deletes one with its file."),
    locked("fetch models"), key.get() ? puller() : null, told, list));
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
    known.length && key.get() ? h("div", null, h("button", { type: "button", class: "quiet", onclick: () => removeModel(name, known[0].id) }, "Remove from the swarm")) : null,
    h("ul", { class: "places" }, places.length ? places : h("li", { class: "soft" }, model?.context_length ? "as a file of this device, not loaded yet" : "not here yet: it is fetched when it is asked first")));
}

/** Fetches a model with all devices; each brings its own part. */
function puller() {
  const name = h("input", { id: "pull-name", "aria-label": "Name of a model", placeholder: "glm-4-9b, or hf.co/USER/REPO", autocomplete: "off", size: "28" });
  const form = h("form", { class: "row plan-form" }, name, h("button", { type: "submit", class: "main" }, "Fetch"));
  form.onsubmit = (event) => { event.preventDefault(); if (name.value.trim()) fetchModel(name.value.trim()); };
  return form;
}

async function fetchModel(name) {
  const mine = view;
  const tell = (...what) => mine.told.replaceChildren(...what);
  tell(h("p", { class: "notice" }, `Looking for ${name}…`));
  try {
    const begun = await post("/swarm/pull", { model: name });
    if (begun.alone) return tell(h("p", { class: "notice" }, "One device is enough for that, so it is fetched as a file there: ", h("code", null, `swarm pull ${name}`)));
    if (begun.model) return tell(h("p", { class: "notice good" }, `${name} is in the swarm already.`));
    return await followPull(begun, mine, tell);
  } catch (error) {
    return tell(refusal(error));
  }
}

async function followPull(begun, mine, tell) {
  const bar = h("progress", { max: "1", value: "0", "aria-label": "How much has come" });
  const line = h("span");
  tell(h("div", { class: "notice" }, h("p", null, `${begun.what} from ${begun.place}, brought by ${begun.devices.join(", ")}`), h("div", { class: "reading" }, bar, line)));
  while (view === mine) {
    const now = await post("/swarm/pulled", { pull: begun.pull });
    if (now.error) return tell(h("p", { class: "notice bad", role: "alert" }, now.error));
    if (now.phase === "done") {
      say("The model is there");
      return tell(h("p", { class: "notice good" }, `${begun.what} is there.`));
    }
    bar.value = now.total ? now.done / now.total : 0;
    line.textContent = `${now.waits || now.phase}: ${size(now.done)} of ${size(now.total)}`;
    await new Promise((wake) => setTimeout(wake, 1000));
  }
  return undefined;
}

async function removeModel(name, id) {
  if (!confirm(`Remove ${name} from every device of the swarm? A file of it on this device stays.`)) return;
  const tell = (...what) => view?.told.replaceChildren(...what);
  try {
    const { bytes = 0, devices = [], refused = {} } = await post("/swarm/remove", { model: id, everywhere: true });
    const where = devices.length ? `, also on ${devices.join(", ")}` : "";
    const not = Object.entries(refused).map(([device, why]) => h("p", { class: "notice bad" }, `Not on ${device}: ${why}`));
    tell(h("p", { class: "notice good" }, `${name} is removed${where} (${size(bytes)} gained here).`), ...not);
  } catch (error) {
    tell(refusal(error));
  }
  refresh();
}

function place(device, held) {
  if (!held.length) return null;
  const have = held.reduce((sum, each) => sum + each.n_have, 0);
  const all = held.reduce((sum, each) => sum + each.n_chunks, 0);
  const share = all ? have / all : 0;
  return h("li", null, h("span", null, device.name), h("div", { class: "bar", vars: { "--share": String(share), "--c": `var(--c${device.colour})` } }), h("small", null, share >= 1 ? "all of it" : `${Math.floor(share * 100)} %`));
}
