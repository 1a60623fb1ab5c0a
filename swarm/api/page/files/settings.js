// How the model is asked: kept in this browser, sent with each question.

import { h } from "./dom.js";
import { choices, choose } from "./store.js";

/** A dialog with the settings of the chat; `onClose` when it is closed. */
export function settingsDialog(onClose) {
  const chosen = choices();
  const system = h("textarea", { id: "set-system", rows: "3", placeholder: "such as: answer in short sentences" });
  system.value = chosen.system ?? "";
  const temperature = h("input", { id: "set-temperature", type: "number", min: "0", max: "2", step: "0.1", placeholder: "the model's own", value: chosen.temperature });
  const most = h("input", { id: "set-most", type: "number", min: "1", step: "1", placeholder: "as long as it takes", value: chosen.max_tokens });
  const thinks = h("select", { id: "set-thinks" }, [["", "as the model does"], ["yes", "think first"], ["no", "answer at once"]]
    .map(([value, text]) => h("option", { value, selected: value === ({ true: "yes", false: "no" }[String(chosen.thinks)] ?? "") }, text)));
  const dialog = h("dialog", { class: "settings", "aria-labelledby": "set-title" }, h("form", { method: "dialog" },
    h("h2", { id: "set-title" }, "Settings of the chat"),
    field("set-system", "What the model is told first", system),
    field("set-temperature", "Temperature", temperature),
    field("set-most", "Most tokens of an answer", most),
    field("set-thinks", "Thinking", thinks),
    h("p", { class: "soft" }, "Enter sends, Shift+Enter makes a new line, Esc stops. Ctrl+K searches, Alt+N begins anew, / goes to the question."),
    h("div", { class: "row" }, h("button", { type: "submit", class: "main" }, "Done"))));
  dialog.onclose = () => {
    const number = (input) => (input.value === "" || !input.validity.valid ? undefined : Number(input.value));
    choose({ system: system.value.trim() || undefined, temperature: number(temperature), max_tokens: number(most), thinks: { yes: true, no: false }[thinks.value] });
    dialog.remove();
    onClose();
  };
  document.body.append(dialog);
  dialog.showModal();
}

function field(id, label, input) {
  return h("div", { class: "field" }, h("label", { for: id }, label), input);
}
