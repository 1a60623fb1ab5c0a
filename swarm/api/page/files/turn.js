// One turn as it is shown; made once and refreshed as the answer comes.

import { live } from "./answers.js";
import { siblings } from "./conversation.js";
import { copyButton, h } from "./dom.js";
import { update } from "./markdown.js";
import { count, seconds, size, speed } from "./units.js";

const ENDS = {
  length: "It ended at the limit of tokens that is set.",
  context: "The context is full: begin a new conversation, or ask again with less.",
};

/** The element of a turn; `act` has edit, again, goOn and show. */
export function turnView(chat, turn, act) {
  return turn.role === "user" ? question(chat, turn, act) : answer(chat, turn, act);
}

function question(chat, turn, act) {
  const files = (turn.files ?? []).map((file) => h("span", { class: "file" }, file.name, h("small", null, size(file.text.length))));
  const body = h("div", { class: "said" }, files.length ? h("div", { class: "files" }, files) : null, h("div", { class: "plain" }, turn.text));
  const element = h("article", { class: "turn user", "aria-label": "You" }, body, h("div", { class: "tools" },
    branches(chat, turn, act), copyButton(() => turn.text),
    button("Edit", () => element.querySelector(".said") && edit(element, chat, turn, act))));
  element.refresh = () => {};
  return element;
}

function button(label, onclick, props) {
  return h("button", { type: "button", class: "quiet", onclick, ...props }, label);
}

/** The question becomes a field; asking it makes a branch. */
function edit(element, chat, turn, act) {
  const field = h("textarea", { "aria-label": "Edit the question", rows: "3" });
  field.value = turn.text;
  const back = () => { element.replaceWith(question(chat, turn, act)); };
  const form = h("form", { class: "editing" }, field, h("div", { class: "row" },
    h("button", { type: "submit", class: "main" }, "Ask"), button("Cancel", back)));
  form.onsubmit = (event) => { event.preventDefault(); if (field.value.trim()) act.edit(turn, field.value); };
  form.onkeydown = (event) => {
    if (event.key === "Escape") { event.stopPropagation(); back(); }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
  };
  element.replaceChildren(form);
  field.style.height = `${Math.min(field.scrollHeight + 4, 400)}px`;
  field.focus();
}

/** ‹ 2 of 3 › where a question was edited or asked again. */
function branches(chat, turn, act) {
  const all = siblings(chat, turn);
  if (all.length < 2) return null;
  const at = all.indexOf(turn);
  const step = (by, sign, label) => button(sign, () => act.show(all[at + by]), { disabled: !all[at + by], "aria-label": label });
  return h("span", { class: "branches" }, step(-1, "‹", "The version before"), h("span", null, `${at + 1} of ${all.length}`), step(1, "›", "The next version"));
}

function answer(chat, turn, act) {
  const thoughts = h("div", { class: "thoughts md" });
  const summary = h("summary", null, "Thinking");
  const thinking = h("details", { class: "thinking" }, summary, thoughts);
  const text = h("div", { class: "md" });
  const status = h("div", { class: "status" });
  const notes = h("div", { class: "notes" });
  const tools = h("div", { class: "tools" });
  const element = h("article", { class: "turn answer", "aria-label": "Answer" }, thinking, text, notes, status, tools);
  element.refresh = () => {
    const now = live(chat)?.turn === turn ? live(chat) : null;
    element.setAttribute("aria-busy", String(Boolean(now)));
    element.classList.toggle("coming", Boolean(now));
    thinking.hidden = !turn.thinking;
    if (turn.thinking) {
      summary.textContent = now && !turn.text ? "Thinking…" : "Thoughts";
      if (thinking.open) update(thoughts, turn.thinking);
    }
    update(text, turn.text);
    notes.replaceChildren(...(turn.notes ?? []).map((note) => h("p", null, note)));
    status.replaceChildren(...(now ? progress(now) : ending(turn, act)));
    if (!now !== (tools.childElementCount > 0)) tools.replaceChildren(...(now ? [] : toolsOf(chat, turn, act)));
  };
  thinking.ontoggle = () => update(thoughts, turn.thinking ?? "");
  element.refresh();
  return element;
}

function progress(now) {
  if (now.reading) {
    const [done, total] = now.reading;
    return [h("div", { class: "reading" },
      h("progress", { max: String(total), value: String(done), "aria-label": "Reading the question" }),
      h("span", null, `reading ${count(done)} of ${count(total)}`))];
  }
  if (now.note) return [h("p", { class: "waiting" }, now.note)];
  if (!now.pieces) return [h("p", { class: "waiting" }, h("span", { class: "dots", "aria-hidden": "true" }), "waiting for the first word")];
  const took_s = (performance.now() - now.first) / 1000;
  return [h("p", { class: "figures" }, `${count(now.pieces)} tokens${took_s > 0.5 ? ` · ${speed((now.pieces - 1) / took_s)}` : ""}`)];
}

function ending(turn, act) {
  const out = [];
  if (turn.error) {
    const again = turn.state === "cut" ? button("Go on", () => act.goOn(turn), { class: "main" }) : button("Try again", () => act.goOn(turn), { class: "main" });
    out.push(h("div", { class: "trouble", role: "alert" }, h("p", null, turn.error), again));
  }
  if (turn.state === "stopped") out.push(h("p", { class: "figures" }, "stopped"));
  if (ENDS[turn.finish]) out.push(h("p", { class: "figures" }, ENDS[turn.finish]));
  if (turn.stats) out.push(figures(turn));
  return out;
}

function figures({ stats, model }) {
  const { generated, guessed, decode_s, first_s, prompt, cached } = stats;
  const rate = generated > 1 && decode_s > 0 ? speed((generated - 1) / decode_s) : "";
  const parts = [`${count(generated)} tokens`, guessed ? `${count(guessed)} guessed` : "", rate, first_s ? `first word after ${seconds(first_s)}` : "", model];
  const title = `${count(prompt)} tokens of prompt${cached ? `, ${count(cached)} of them known from before` : ""}`;
  return h("p", { class: "figures", title }, parts.filter(Boolean).join(" · "));
}

function toolsOf(chat, turn, act) {
  return [branches(chat, turn, act), copyButton(() => turn.text), button("Ask again", () => act.again(turn))].filter(Boolean);
}
