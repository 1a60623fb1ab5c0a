// The view of plans: where a model would run, as it is and with devices that nobody owns yet, side by side.

import { partOf } from "./device_words.js";
import { h, iconButton, say } from "./dom.js";
import { strip } from "./layers.js";
import { locked, refusal } from "./locked.js";
import { get, key, post } from "./node.js";
import { choices, choose } from "./store.js";
import { seconds, size, speed } from "./units.js";

export const LABEL = "Plan";
const CLASSES = {
  pi4: "Raspberry Pi 4, 8 GiB", pi5: "Raspberry Pi 5, 8 GiB", n100: "mini PC with N100, 16 GiB",
  laptop: "laptop, DDR4, 16 GiB", minipc: "mini PC, DDR5, 32 GiB",
};
const FIRST = [[], ["pi5"], ["pi5", "pi5"]];

let view = null;

export async function open(main) {
  const model = h("select", { id: "plan-model" });
  const context = h("input", { id: "plan-context", type: "number", min: "0", step: "512", placeholder: "a long chat" });
  const cards = h("div", { class: "cards" });
  const trouble = h("div");
  const form = h("form", { class: "row plan-form" }, h("label", { for: "plan-model" }, "Model"), model,
    h("label", { for: "plan-context" }, "Context"), context, h("button", { type: "submit", class: "main" }, "Compare"));
  form.onsubmit = (event) => { event.preventDefault(); compare(); };
  view = { model, context, cards, trouble, asked: 0 };
  main.append(h("div", { class: "page" }, h("h1", null, "Plan"),
    h("p", { class: "soft" }, "Where a model would run, how fast, and why: with the devices that are there, and with some that are not. Nothing is loaded."),
    form, builder(), trouble, cards));
  trouble.replaceChildren(...[locked("compare plans")].filter(Boolean));
  try {
    const listed = (await get("/v1/models")).data;
    if (!view) return;
    model.replaceChildren(...listed.map((each) => h("option", { value: each.id, selected: each.default }, each.id)));
  } catch (error) {
    trouble.replaceChildren(refusal(error));
  }
  if (key.get()) compare();
}

export function close() {
  view = null;
}

function scenarios() {
  return choices().scenarios ?? FIRST;
}

/** A column more: what is to be added to the devices there are. */
function builder() {
  const kind = h("select", { id: "add-kind", "aria-label": "Kind of device" }, Object.entries(CLASSES).map(([name, text]) => h("option", { value: name, selected: name === "pi5" }, text)));
  const n = h("input", { id: "add-count", type: "number", min: "1", max: "16", value: "1", "aria-label": "How many" });
  const form = h("form", { class: "row plan-form" }, h("span", null, "What if there were"), n, kind, h("span", null, "more?"), h("button", { type: "submit", class: "quiet edged" }, "Add a column"));
  form.onsubmit = (event) => {
    event.preventDefault();
    choose({ scenarios: [...scenarios(), Array(Math.min(Math.max(Number(n.value) || 1, 1), 16)).fill(kind.value)] });
    compare();
  };
  return form;
}

async function compare() {
  const asked = view.asked += 1;
  const all = scenarios();
  view.trouble.replaceChildren(...[locked("compare plans")].filter(Boolean));
  if (!key.get()) return;
  view.cards.setAttribute("aria-busy", "true");
  try {
    const body = { model: view.model.value, context: Number(view.context.value) || 0 };
    const plans = [];
    for (const add of all) plans.push(await post("/swarm/plan", { ...body, add }));
    if (!view || view.asked !== asked) return;
    const best = Math.max(...plans.map((plan) => plan.tokens_per_s ?? 0));
    view.cards.replaceChildren(...plans.map((plan, i) => card(plan, all, i, best)));
    say(`${plans.length} plans compared`);
  } catch (error) {
    if (view) view.trouble.replaceChildren(refusal(error));
  } finally {
    view?.cards.setAttribute("aria-busy", "false");
  }
}

function card(plan, all, i, best) {
  const add = all[i];
  const [first, ...reasons] = plan.lines;
  const remove = add.length ? iconButton("close", "Remove this column", () => { choose({ scenarios: all.filter((_, at) => at !== i) }); compare(); }) : null;
  const share = best ? (plan.tokens_per_s ?? 0) / best : 0;
  return h("article", { class: `card${plan.fits ? "" : " unfit"}` },
    h("header", null, h("h2", null, titleOf(add)), remove),
    plan.fits ? [h("p", { class: "big" }, speed(plan.tokens_per_s)), h("div", { class: "bar", vars: { "--share": String(share) } }),
      h("p", { class: "soft" }, `first word after ${seconds(plan.first_token_s)} · ${speed(plan.busy_tokens_per_s)} for several at once`), stages(plan.stages)]
      : [h("p", { class: "big bad" }, "does not fit"), plan.missing_bytes ? h("p", { class: "soft" }, `${size(plan.missing_bytes)} of memory are missing`) : null],
    h("details", { open: true }, h("summary", null, "Why"), h("ul", { class: "reasons" }, (plan.fits ? reasons : plan.lines).filter((line) => !line.startsWith("  ")).map(reason)),
      plan.fits ? h("p", { class: "soft" }, first) : null));
}

function reason(line) {
  return h("li", { class: /^limited by/.test(line) ? "main-reason" : null }, line);
}

function titleOf(add) {
  if (!add.length) return "As it is";
  const counts = new Map();
  for (const name of add) counts.set(name, (counts.get(name) ?? 0) + 1);
  return [...counts].map(([name, n]) => `+ ${n} ${(CLASSES[name] ?? name).split(",")[0]}`).join(", ");
}

function stages(list) {
  const names = [...new Set(list.map((stage) => stage.name))];
  const rows = list.map((stage) => h("li", null, h("span", { class: "swatch", vars: { "--c": `var(--c${names.indexOf(stage.name) % 8})` } }), h("span", null, stage.name),
    h("small", null, `${stage.first}–${stage.end - 1}${partOf(stage)} · ${size(stage.memory_bytes)}${stage.fetch_bytes ? ` · ${size(stage.fetch_bytes)} to fetch` : ""}`)));
  return [strip(list.map((stage) => ({ name: stage.name, colour: names.indexOf(stage.name) % 8, first: stage.first, end: stage.end, share: stage.share }))), h("ul", { class: "stage-list" }, rows)];
}
