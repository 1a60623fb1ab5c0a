// The view of a conversation.

import { live, onChange, run, stop } from "./answers.js";
import * as talk from "./conversation.js";
import { composer } from "./composer.js";
import { h, iconButton, saveAs, say } from "./dom.js";
import { historyPanel } from "./history.js";
import { get } from "./node.js";
import { settingsDialog } from "./settings.js";
import { stageLights } from "./stages.js";
import { chat as chatOf, choices, choose, keep } from "./store.js";
import { turnView } from "./turn.js";
import { count } from "./units.js";

export const LABEL = "Chat";
const IDEAS = [
  "Why is the sky blue? Explain it to a child.",
  "Plan three dinners from potatoes, leeks and eggs.",
  "Write a Python function that finds duplicate files.",
  "Which questions should I ask before I rent a flat?",
];
const AT_END_PX = 80;  // so near to the end counts as being there: new text is followed

let view = null;
let current = talk.newChat();
let models = [];
let swarm = null;
let stick = true;

export function open(main) {
  const log = h("div", { class: "log", role: "region", "aria-label": "Conversation", tabindex: "0" });
  const trouble = h("p", { class: "composer-trouble", role: "alert" });
  const form = composer({ send, stop: () => stop(current) });
  form.addEventListener("trouble", (event) => { trouble.textContent = event.detail; });
  form.addEventListener("input", () => { trouble.textContent = ""; });
  const picker = h("select", { class: "model", "aria-label": "Model" });
  picker.onchange = () => { choose({ model: picker.value }); showGauge(); };
  const gauge = h("div", { class: "gauge" });
  const lights = h("div", { class: "lights" });
  const panel = historyPanel(() => { location.hash = "#chat"; begin(talk.newChat()); });
  view = { log, form, picker, gauge, lights, panel, trouble };
  const head = h("header", { class: "chat-head" },
    iconButton("list", "Conversations", toggleHistory, { class: "icon-button phone", "aria-expanded": "false", id: "history-button" }), picker,
    h("span", { class: "space" }), gauge,
    iconButton("tune", "Settings of the chat", () => settingsDialog(showGauge)),
    h("button", { type: "button", class: "quiet", onclick: exportShown }, "Export"));
  main.append(head, log, h("div", { class: "foot" }, lights, form, trouble));
  document.getElementById("rail-more").replaceChildren(panel);
  log.onscroll = () => { stick = log.scrollHeight - log.scrollTop - log.clientHeight < AT_END_PX; };
  panel.addEventListener("click", (event) => { if (event.target.closest("a, .new")) document.body.classList.remove("history-open"); });
  document.addEventListener("keydown", onKey);
  begin(current);
  listModels();
}

export function close() {
  document.removeEventListener("keydown", onKey);
  document.getElementById("rail-more").replaceChildren();
  document.body.classList.remove("history-open");
  view = null;
}

/** Show the conversation that the address names. */
export async function go(id) {
  document.body.classList.remove("history-open");
  if (!id || id === current.id) return view.panel.refresh(current.id);
  const found = await chatOf(id);
  if (found) begin(found);
  return undefined;
}

export function onState(state) {
  const isBack = !swarm && state;
  swarm = state;
  view.lights.replaceChildren(...stageLights(state, live(current)));
  if (isBack) { listModels(); goOnWhereCut(); }
}

function begin(chat) {
  current = chat;
  stick = true;
  showAll();
  view.panel.refresh(chat.id);
  goOnWhereCut();
  if (matchMedia("(pointer: fine)").matches) view.form.focusField();
}

/** An answer that a reload or the node's end has cut off comes again, from the same seed: word for word. */
function goOnWhereCut() {
  const turn = current.turns[current.leaf];
  if (turn?.role === "assistant" && ["coming", "cut"].includes(turn.state) && !live(current)) run(current, turn);
}

const act = {
  edit(turn, text) {
    talk.add(current, turn.parent, "user", { text, files: turn.files });
    answer();
  },
  again(turn) {
    current.leaf = turn.parent;
    answer();
  },
  goOn(turn) {
    run(current, turn);
  },
  show(turn) {
    talk.select(current, turn);
    keep(current);
    showAll();
  },
};

function send(text, files) {
  talk.add(current, current.leaf, "user", { text, files });
  answer();
}

/** Let the model answer the turn that is shown last. */
function answer() {
  const chosen = choices();
  const model = view.picker.value;
  const turn = talk.add(current, current.leaf, "assistant", {
    asked: model, model: model || models.find((each) => each.default)?.id || "", seed: Math.floor(Math.random() * talk.SEEDS),
    temperature: chosen.temperature, max_tokens: chosen.max_tokens, thinks: chosen.thinks, system: chosen.system,
  });
  stick = true;
  if (location.hash !== `#chat/${current.id}`) history.replaceState(null, "", `#chat/${current.id}`);
  keep(current).then(() => view?.panel.refresh(current.id));
  run(current, turn);
  showAll();
  say("Asked; the answer is coming");
}

function showAll() {
  const turns = talk.path(current).map((turn) => turnView(current, turn, act));
  view.log.replaceChildren(...(turns.length ? [h("h1", { class: "unseen" }, current.title || "Conversation"), ...turns] : [welcome()]));
  view.form.setComing(Boolean(live(current)));
  showGauge();
  follow();
}

function welcome() {
  const ideas = IDEAS.map((text) => h("button", { type: "button", class: "idea", onclick: () => view.form.setText(text) }, text));
  return h("div", { class: "welcome" }, h("h1", null, "Your devices, one model."),
    h("p", null, "What you write stays among them. Files can be dropped into the question."), h("div", { class: "ideas" }, ideas));
}

let drawn = 0;
onChange((chat, turn) => {
  if (!view || chat !== current) return;
  const isComing = Boolean(live(chat));
  view.form.setComing(isComing);
  if (isComing) {
    drawn ||= requestAnimationFrame(draw);  // however many tokens come between two pictures
    return;
  }
  draw();  // who sees that it is complete sees all of it
  view.panel.refresh(chat.id);
  say(turn.error || "The answer is complete");
});

function draw() {
  cancelAnimationFrame(drawn);
  drawn = 0;
  if (!view) return;
  view.log.lastElementChild?.refresh?.();
  view.lights.replaceChildren(...stageLights(swarm, live(current)));
  if (!live(current)) showGauge();
  follow();
}

function follow() {
  if (stick) view.log.scrollTop = view.log.scrollHeight;
}

async function listModels() {
  try {
    models = (await get("/v1/models")).data;
  } catch {
    return;
  }
  if (!view) return;
  const chosen = choices().model ?? "";
  const normal = models.find((model) => model.default)?.id;
  const options = [["", normal ? `${normal} (default)` : "default model"], ...models.filter((model) => model.id !== normal).map((model) => [model.id, model.id])];
  view.picker.replaceChildren(...options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  showGauge();
}

/** How much of the model's context the conversation takes. */
function showGauge() {
  const turns = talk.path(current);
  const stats = turns.findLast((turn) => turn.stats)?.stats;
  const model = models.find((each) => (view.picker.value ? each.id === view.picker.value : each.default)) ?? models[0];
  const total = model?.context_length ?? 0;
  const used = stats ? stats.prompt + stats.generated : 0;
  view.gauge.hidden = !used;
  if (!used) return;
  const share = total ? Math.min(used / total, 1) : 0;
  const text = total ? `${count(used)} of ${count(total)} tokens of context` : `${count(used)} tokens`;
  view.gauge.replaceChildren(h("span", { class: "ring", "aria-hidden": "true", vars: { "--share": String(share) } }), h("span", null, total ? `${Math.round(share * 100)} %` : text));
  view.gauge.title = text;
  view.gauge.setAttribute("aria-label", text);
  view.gauge.setAttribute("role", "img");
  view.gauge.classList.toggle("full", share > 0.85);
}

function exportShown() {
  if (!current.leaf) return;
  saveAs(`${current.title.replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40) || "conversation"}.md`, talk.asMarkdown(current), "text/markdown");
}

function toggleHistory() {
  const isOpen = document.body.classList.toggle("history-open");
  document.getElementById("history-button").setAttribute("aria-expanded", String(isOpen));
  if (isOpen) view.panel.focusSearch();
}

function onKey(event) {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Escape") {
    if (document.body.classList.contains("history-open")) return toggleHistory();
    return stop(current);
  }
  if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    document.body.classList.add("history-open");
    return view.panel.focusSearch();
  }
  if (event.altKey && event.code === "KeyN") { event.preventDefault(); location.hash = "#chat"; return begin(talk.newChat()); }
  const isWriting = /^(TEXTAREA|INPUT|SELECT)$/.test(event.target.tagName);
  if (event.key === "/" && !isWriting && !event.ctrlKey && !event.metaKey) { event.preventDefault(); view.form.focusField(); }
  return undefined;
}
