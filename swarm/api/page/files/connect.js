// The view with what other programs need to know, with the address and the names that are true here.

import { codeBlock } from "./markdown.js";
import { h } from "./dom.js";
import { get } from "./node.js";

export const LABEL = "Connect";
let view = null;
const IS_HERE = ["127.0.0.1", "localhost", "[::1]"].includes(location.hostname);

// Each: a name, how it is told (a line), and its text by address and model; the language colours it.
const PROGRAMS = [
  ["curl", "The shortest way to see that it answers.", "bash", (base, model, key) => `curl -N ${base}/v1/chat/completions \\
  -H 'Content-Type: application/json' -H 'Authorization: Bearer ${key}' \\
  -d '{"model": "${model}", "stream": true,
       "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'`],
  ["Python", "With OpenAI's package (pip install openai).", "python", (base, model, key) => `from openai import OpenAI

client = OpenAI(base_url="${base}/v1", api_key="${key}")
answer = client.chat.completions.create(
    model="${model}",
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
    stream=True,
)
for chunk in answer:
    print(chunk.choices[0].delta.content or "", end="", flush=True)`],
  ["Open WebUI", "On this device. In a container or elsewhere in the house it needs `swarm serve --lan`, which shows the address and a key.", "bash", (base, model, key) => `OPENAI_API_BASE_URL=${base}/v1 OPENAI_API_KEY=${key} open-webui serve`],
  ["Continue", "In ~/.continue/config.yaml.", "yaml", (base, model, key) => `models:
  - name: Swarm
    provider: openai
    model: ${model}
    apiBase: ${base}/v1
    apiKey: ${key}
    roles: [chat, edit]`],
  ["Copilot in VS Code", "As Ollama: in settings.json; then pick the model under “Manage Models”.", "json", (base) => `{
  "github.copilot.chat.byok.ollamaEndpoint": "${base}"
}`],
  ["Home Assistant", "Settings, Devices & services, Add integration, Ollama. It mostly runs on another device: `swarm serve --lan` here first.", "text", (base, model) => `URL:   ${base}
Model: ${model}`],
  ["aider", "Edits the files of a repository.", "bash", (base, model, key) => `OPENAI_API_BASE=${base}/v1 OPENAI_API_KEY=${key} aider --model openai/${model}`],
  ["Claude Code", "Through Anthropic's dialect; it needs a model that calls tools, and a long context.", "bash", (base, model, key) => `ANTHROPIC_BASE_URL=${base} ANTHROPIC_AUTH_TOKEN=${key} \\
ANTHROPIC_MODEL=${model} claude`],
];

export async function open(main) {
  const picker = h("select", { id: "connect-model" });
  const list = h("div", { class: "programs" });
  view = { picker, list };
  picker.onchange = () => show(picker.value);
  main.append(h("div", { class: "page" }, h("h1", null, "Connect"),
    h("p", { class: "soft" }, "Programs that speak with OpenAI, Anthropic or Ollama can speak with this swarm. ", IS_HERE ? "On this device any word will do as a key." : ["The key is the one that ", h("code", null, "swarm serve --lan"), " showed."]),
    h("div", { class: "row plan-form" }, h("label", { for: "connect-model" }, "Model"), picker), list));
  show("MODEL");
  try {
    const models = (await get("/v1/models")).data;
    if (!view || !models.length) return;
    picker.replaceChildren(...models.map((model) => h("option", { value: model.id, selected: model.default }, model.id)));
    show(picker.value);
  } catch { /* what is shown holds without a name, too */ }
}

export function close() {
  view = null;
}

function show(model) {
  const base = location.origin;
  view.list.replaceChildren(...PROGRAMS.map(([name, line, language, text]) => h("section", null, h("h2", null, name), h("p", { class: "soft" }, line.split("`").map((part, i) => (i % 2 ? h("code", null, part) : part))), codeBlock(language, text(base, model, IS_HERE ? "swarm" : "KEY")))));
}
