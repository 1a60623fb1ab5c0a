// The view with what other programs need to know, with the address and the names that are true here.

import { codeBlock } from "./markdown.js";
import { h } from "./dom.js";
import { get } from "./node.js";

export const LABEL = "Connect";
let view = null;

// Each: a name, how it is told (a line), and its text by address and model; the language colours it.
const PROGRAMS = [
  ["curl", "The shortest way to see that it answers.", "bash", (base, model) => `curl -N ${base}/v1/chat/completions \\
  -H 'Content-Type: application/json' \\
  -d '{"model": "${model}", "stream": true,
       "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'`],
  ["Python", "With OpenAI's package (pip install openai).", "python", (base, model) => `from openai import OpenAI

client = OpenAI(base_url="${base}/v1", api_key="swarm")
answer = client.chat.completions.create(
    model="${model}",
    messages=[{"role": "user", "content": "Why is the sky blue?"}],
    stream=True,
)
for chunk in answer:
    print(chunk.choices[0].delta.content or "", end="", flush=True)`],
  ["Open WebUI", "Started on this device, not in a container: the swarm answers programs of this device.", "bash", (base) => `OPENAI_API_BASE_URL=${base}/v1 OPENAI_API_KEY=swarm open-webui serve`],
  ["Continue", "In ~/.continue/config.yaml.", "yaml", (base, model) => `models:
  - name: Swarm
    provider: openai
    model: ${model}
    apiBase: ${base}/v1
    apiKey: swarm
    roles: [chat, edit]`],
  ["Copilot in VS Code", "As Ollama: in settings.json; then pick the model under “Manage Models”.", "json", (base) => `{
  "github.copilot.chat.byok.ollamaEndpoint": "${base}"
}`],
  ["Home Assistant", "Settings, Devices & services, Add integration, Ollama. It must run on this device.", "text", (base, model) => `URL:   ${base}
Model: ${model}`],
  ["aider", "Edits the files of a repository.", "bash", (base, model) => `OPENAI_API_BASE=${base}/v1 OPENAI_API_KEY=swarm aider --model openai/${model}`],
  ["Claude Code", "Through Anthropic's dialect; it needs a model that calls tools, and a long context.", "bash", (base, model) => `ANTHROPIC_BASE_URL=${base} ANTHROPIC_AUTH_TOKEN=swarm \\
ANTHROPIC_MODEL=${model} claude`],
];

export async function open(main) {
  const picker = h("select", { id: "connect-model" });
  const list = h("div", { class: "programs" });
  view = { picker, list };
  picker.onchange = () => show(picker.value);
  main.append(h("div", { class: "page" }, h("h1", null, "Connect"),
    h("p", { class: "soft" }, "Programs that speak with OpenAI, Anthropic or Ollama can speak with this swarm. Where a key is asked for, any word will do."),
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
  view.list.replaceChildren(...PROGRAMS.map(([name, line, language, text]) => h("section", null, h("h2", null, name), h("p", { class: "soft" }, line), codeBlock(language, text(base, model)))));
}
