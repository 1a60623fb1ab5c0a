// The page: which view is shown, and the state of the swarm for it.

import { h, icon, iconButton, say } from "./dom.js";
import { enter } from "./entering.js";
import { watch } from "./node.js";
import { choices, choose } from "./store.js";
import * as chat from "./chat.js";
import * as connect from "./connect.js";
import * as devices from "./devices.js";
import * as invite from "./invite.js";
import * as models from "./models.js";
import * as plan from "./plan.js";

const VIEWS = { chat, devices, plan, models, connect, invite };
const main = document.getElementById("main");
const nodeLine = document.getElementById("node");
let state = null;
let shown = null;

function build() {
  for (const [name, view] of Object.entries(VIEWS)) {
    document.getElementById("tabs").append(h("a", { href: `#${name}`, id: `tab-${name}` }, icon(name), h("span", null, view.LABEL)));
  }
  nodeLine.before(h("div", { class: "rail-end" }, iconButton("theme", "Change between light and dark", changeTheme)));
  showTheme();
  addEventListener("hashchange", route);
  route();
}

/** `#view/rest`: the address says what is shown, so that the browser's Back works. */
function route() {
  const [name, ...rest] = decodeURIComponent(location.hash.slice(1)).split("/");
  const view = VIEWS[name] ?? VIEWS.chat;
  if (view !== shown) {
    shown?.close?.();
    shown = view;
    main.replaceChildren();
    main.className = `view-${VIEWS[name] ? name : "chat"}`;
    for (const tab of document.getElementById("tabs").children) {
      const isShown = tab.id === `tab-${VIEWS[name] ? name : "chat"}`;
      isShown ? tab.setAttribute("aria-current", "page") : tab.removeAttribute("aria-current");
    }
    document.title = view === chat ? "Swarm" : `${view.LABEL} · Swarm`;
    view.open(main);
    if (state) view.onState?.(state);
  }
  view.go?.(rest.join("/"));
}

function onState(next) {
  const wasThere = state !== null;
  if (next === null && wasThere) say("The node on this device does not answer");
  if (next && state) tellChanges(state, next);
  state = next;
  document.body.classList.toggle("away", !next);
  nodeLine.textContent = next ? lineOf(next) : "no answer from the node; trying again";
  shown.onState?.(next);
}

function lineOf(next) {
  const there = next.devices.filter((device) => device.health !== "lost").length;
  return `${next.name} · ${there} ${there === 1 ? "device" : "devices"}`;
}

/** Who has come and who has gone is said aloud, whatever is shown. */
function tellChanges(before, next) {
  const gone = (view) => new Set(view.devices.filter((device) => device.health === "lost").map((device) => device.peer));
  const was = gone(before);
  const now = gone(next);
  for (const { peer, name } of next.devices) {
    if (now.has(peer) && !was.has(peer)) say(`${name} is gone`);
    if (!now.has(peer) && (was.has(peer) || !before.devices.some((device) => device.peer === peer))) say(`${name} is there`);
  }
}

function changeTheme() {
  const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
  const now = choices().theme || (isDark ? "dark" : "light");
  choose({ theme: now === "dark" ? "light" : "dark" });
  showTheme();
}

function showTheme() {
  const { theme } = choices();
  if (theme) document.documentElement.dataset.theme = theme;
}

await enter();
build();
watch(onState);
