// Elements are built from values, never from markup: what a model or a device says stays text.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `props` are attributes, or properties where they are functions (onclick) or booleans. */
export function h(tag, props, ...children) {
  return filled(document.createElement(tag), props, children);
}

/** The same inside of a drawing. */
export function s(tag, props, ...children) {
  return filled(document.createElementNS(SVG, tag), props, children);
}

function filled(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element[name] = value;
    else if (name === "vars") for (const [key, v] of Object.entries(value)) element.style.setProperty(key, v);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Say something to people who do not see the page. */
export function say(text) {
  document.getElementById("said").textContent = text;
}

/** A button that copies `text()` and says so. */
export function copyButton(text, label = "Copy") {
  const button = h("button", { type: "button", class: "quiet copy" }, label);
  button.onclick = async () => {
    await copied(text());
    button.textContent = "Copied";
    say("Copied");
    setTimeout(() => { button.textContent = label; }, 1500);
  };
  return button;
}

async function copied(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).catch(() => {});
  const area = h("textarea", { class: "unseen" });  // a page that is not of this device has no clipboard
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** Let the user keep `text` as a file. */
export function saveAs(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const ICONS = {
  chat: "M4 5h16v11H9l-5 4z",
  devices: "M12 3l4 2.3v4.6L12 12 8 9.900V5.300zM7 13l4 2.300v4.600L7 22l-4-2.100v-4.600zM17 13l4 2.300v4.600L17 22l-4-2.100v-4.600z",
  plan: "M4 6h10M4 12h16M4 18h7M17 3v6M14 6h6",
  models: "M12 3l9 4.500-9 4.500-9-4.500zM3 12l9 4.500 9-4.500M3 16.500L12 21l9-4.500",
  connect: "M9 7V3m6 4V3M6 7h12v4a6 6 0 0 1-12 0zM12 17v4",
  invite: "M10 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM3 21c0-4 3-7 7-7M18 13v8M14 17h8",
  send: "M12 20V5M5.500 11.500L12 5l6.500 6.500",
  stop: "M7 7h10v10H7z",
  attach: "M20 11l-8.500 8.500a5 5 0 0 1-7-7L13 4a3.500 3.500 0 0 1 5 5l-8.500 8.500a2 2 0 0 1-3-3L14 7",
  plus: "M12 5v14M5 12h14",
  search: "M10.500 17a6.500 6.500 0 1 0 0-13 6.500 6.500 0 0 0 0 13zM20 20l-4.500-4.500",
  close: "M6 6l12 12M18 6L6 18",
  tune: "M4 7h9M19 7h1M4 17h1M11 17h9M16 4.500v5M8 14.500v5",
  list: "M4 6h16M4 12h16M4 18h10",
  theme: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
};

/** A small drawing; it says nothing by itself. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" },
    s("path", { d: ICONS[name] }));
}

/** A button that shows a drawing and is called `label`. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...props }, icon(name));
}
