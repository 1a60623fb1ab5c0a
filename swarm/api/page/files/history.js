// The conversations that this browser keeps: a list with search, a way out (export) and in (import).

import { contains, imported } from "./conversation.js";
import { h, icon, iconButton, saveAs, say } from "./dom.js";
import { chats, forget, keep } from "./store.js";
import { day } from "./units.js";

/** The panel; its `refresh(shownId)` reads the list again. */
export function historyPanel(onNew) {
  const search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search conversations", id: "search" });
  const list = h("div", { class: "chats" });
  const picker = h("input", { type: "file", accept: ".json,application/json", class: "unseen", tabindex: "-1", "aria-hidden": "true" });
  const panel = h("div", { class: "history" },
    h("button", { type: "button", class: "new", onclick: onNew, title: "New conversation (Alt+N)" }, icon("plus"), "New conversation"),
    h("div", { class: "search" }, icon("search"), search), list,
    h("div", { class: "row" }, h("button", { type: "button", class: "quiet", onclick: exportAll }, "Export all"),
      h("button", { type: "button", class: "quiet", onclick: () => picker.click() }, "Import"), picker));
  let shown = null;
  const refresh = async (id = shown) => {
    shown = id;
    const wanted = search.value.trim();
    const found = (await chats()).filter((chat) => !wanted || contains(chat, wanted));
    list.replaceChildren(...grouped(found, shown, refresh));
    if (!found.length) list.append(h("p", { class: "soft" }, wanted ? "Nothing found." : "Conversations stay in this browser."));
    if (wanted) say(`${found.length} found`);
  };
  let timer;
  search.oninput = () => { clearTimeout(timer); timer = setTimeout(refresh, 120); };
  picker.onchange = async () => { await takeFile(picker.files[0]); picker.value = ""; refresh(); };
  panel.refresh = refresh;
  panel.focusSearch = () => search.focus();
  return panel;
}

function grouped(all, shown, refresh) {
  const groups = Map.groupBy ? Map.groupBy(all, (chat) => day(chat.updated)) : new Map([["", all]]);
  return [...groups].map(([name, group]) => h("section", { "aria-label": name }, name && h("h2", null, name),
    h("ul", null, group.map((chat) => row(chat, shown, refresh)))));
}

function row(chat, shown, refresh) {
  const title = chat.title || "Without a title";
  const remove = async () => {
    if (!confirm(`Delete “${title}” from this browser?`)) return;
    await forget(chat.id);
    if (chat.id === shown) location.hash = "#chat";
    refresh();
  };
  return h("li", null, h("a", { href: `#chat/${chat.id}`, "aria-current": chat.id === shown ? "true" : null }, title),
    iconButton("close", `Delete ${title}`, remove));
}

async function exportAll() {
  saveAs("swarm-conversations.json", JSON.stringify(await chats(), null, 1), "application/json");
}

async function takeFile(file) {
  let values;
  try {
    values = [JSON.parse(await file.text())].flat();
  } catch {
    return say("That file is not an export of this page");
  }
  const taken = values.map(imported).filter(Boolean);
  for (const chat of taken) await keep(chat);
  return say(`${taken.length} conversations imported`);
}
