// Where a question is written: text, files put into it, and the button that sends or stops.

import { h, icon, iconButton, say } from "./dom.js";
import { size } from "./units.js";

const MAX_FILE_BYTES = 2 * 1024 * 1024;  // more text than any context here holds
const MAX_FILES = 20;
const PASTED_CHARS = 6000;  // a longer paste becomes a file: the question stays readable

/** The form; `on.send(text, files)` and `on.stop()`. Its `setComing(bool)` and `focus()` are for the view. */
export function composer(on) {
  let files = [];
  let isComing = false;
  const chips = h("ul", { class: "chips", "aria-label": "Files in the question" });
  const field = h("textarea", { id: "question", rows: "1", placeholder: "Ask anything", "aria-label": "Your question", enterkeyhint: "send", autocomplete: "off" });
  const picker = h("input", { type: "file", multiple: true, class: "unseen", tabindex: "-1", "aria-hidden": "true" });
  const send = h("button", { type: "submit", class: "send", "aria-label": "Send" }, icon("send"));
  const form = h("form", { class: "composer" }, chips, h("div", { class: "composer-row" },
    iconButton("attach", "Put files into the question", () => picker.click()), picker, field, send));

  const fit = () => {
    field.style.height = "auto";
    field.style.height = `${Math.min(field.scrollHeight, 260)}px`;
  };
  const showFiles = () => chips.replaceChildren(...files.map((file, i) => h("li", null, h("span", null, file.name), h("small", null, size(file.text.length)),
    iconButton("close", `Remove ${file.name}`, () => { files.splice(i, 1); showFiles(); field.focus(); }))));
  const take = async (list) => {
    for (const file of list) {
      const read = files.length < MAX_FILES ? await textOf(file) : { error: `no more than ${MAX_FILES} files at once` };
      if (read.error) { form.dispatchEvent(new CustomEvent("trouble", { detail: read.error })); say(read.error); }
      else files.push({ name: file.name, text: read.text });
    }
    showFiles();
    field.focus();
  };

  form.onsubmit = (event) => {
    event.preventDefault();
    if (isComing) return on.stop();
    if (!field.value.trim() && !files.length) return undefined;
    on.send(field.value.trim(), files);
    files = [];
    field.value = "";
    showFiles();
    return fit();
  };
  field.oninput = fit;
  field.onkeydown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); if (!isComing) form.requestSubmit(); }
  };
  field.onpaste = (event) => {
    const pasted = event.clipboardData?.getData("text/plain") ?? "";
    if (event.clipboardData?.files.length) { event.preventDefault(); take([...event.clipboardData.files]); }
    else if (pasted.length > PASTED_CHARS) {
      event.preventDefault();
      files.push({ name: `pasted-${files.length + 1}.txt`, text: pasted });
      showFiles();
    }
  };
  picker.onchange = () => { take([...picker.files]); picker.value = ""; };
  form.ondragover = (event) => { event.preventDefault(); form.classList.add("over"); };
  form.ondragleave = () => form.classList.remove("over");
  form.ondrop = (event) => { event.preventDefault(); form.classList.remove("over"); take([...event.dataTransfer.files]); };

  form.setComing = (value) => {
    if (value === isComing) return;
    isComing = value;
    send.setAttribute("aria-label", value ? "Stop" : "Send");
    send.classList.toggle("stop", value);
    send.replaceChildren(icon(value ? "stop" : "send"));
  };
  form.focusField = () => field.focus();
  form.setText = (text) => { field.value = text; fit(); field.focus(); };
  return form;
}

async function textOf(file) {
  if (file.size > MAX_FILE_BYTES) return { error: `${file.name} has ${size(file.size)}; at most ${size(MAX_FILE_BYTES)} of text can be put into a question` };
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (text.includes("\0")) throw new Error("binary");
    return { text };
  } catch {
    return { error: `${file.name} is not a text file` };
  }
}
