// The view that lets one more device in: a code, the command for it, and whether somebody has come.

import { codeBlock } from "./markdown.js";
import { h, say } from "./dom.js";
import { locked, refusal } from "./locked.js";
import { key, post } from "./node.js";
import { qrCode } from "./qr.js";

export const LABEL = "Invite";
let view = null;

export function open(main) {
  const box = h("div", { class: "invitation" });
  const button = h("button", { type: "button", class: "main" }, "Show a code");
  button.onclick = () => invite();
  view = { box, button, timer: 0, began: 0 };
  main.append(h("div", { class: "page narrow" }, h("h1", null, "Invite"),
    h("p", null, "A code lets one more device into the swarm. It is good for ten minutes, and three wrong guesses end it."),
    locked("invite a device"), key.get() ? button : null, box,
    h("h2", null, "On the new device"), h("ol", { class: "steps" },
      h("li", null, "Connect it to the same network."),
      h("li", null, "Install Swarm there, as on this device."),
      h("li", null, "Run the command with the code. It finds this device by itself; where the network does not let it, add ", h("code", null, "--peer ADDRESS"), "."))));
}

export function close() {
  clearInterval(view.timer);
  view = null;
}

export function onState(state) {
  if (!state || !view.began) return;
  const news = state.events.filter((event) => event.at > view.began);
  const came = news.find((event) => event.event === "let_in");
  const ended = news.find((event) => event.event === "invitation_ended");
  if (came) finish(`${came.name} is in.`);
  else if (ended) finish(`The invitation is over: ${ended.why}`);
}

function finish(text) {
  clearInterval(view.timer);
  view.began = 0;
  view.box.replaceChildren(h("p", { class: "notice good" }, text));
  view.button.textContent = "Show another code";
  say(text);
}

async function invite() {
  const began = Date.now() / 1000;
  try {
    const { code, seconds, qr } = await post("/swarm/invite", { qr: true });
    if (!view) return;
    Object.assign(view, { began });
    const left = h("p", { class: "soft", role: "timer" });
    const tick = () => {
      const rest = Math.max(Math.round(began + seconds - Date.now() / 1000), 0);
      left.textContent = rest ? `good for ${Math.floor(rest / 60)}:${String(rest % 60).padStart(2, "0")} more` : "no longer good";
      if (!rest) clearInterval(view.timer);
    };
    clearInterval(view.timer);
    view.timer = setInterval(tick, 1000);
    tick();
    view.box.replaceChildren(h("p", { class: "code-big" }, code), left, codeBlock("bash", `swarm join ${code}`),
      qrCode(qr, `A QR code of the command: swarm join ${code}`));
    say(`The code is ${code}`);
  } catch (error) {
    if (view) view.box.replaceChildren(refusal(error));
  }
}
