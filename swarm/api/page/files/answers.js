// Answers that come just now, whichever conversation is shown. A turn keeps its seed, so an answer that was cut off (a
// reload, a node that started anew) is asked for again and comes word for word as it was: what is there stays.

import { messages } from "./conversation.js";
import { ask, Refused } from "./node.js";
import { keep, keepAtOnce } from "./store.js";

const KEEP_MS = 400;  // how much of an answer a browser that dies may lose; it comes again anyway
const coming = new Map();  // by the conversation's id
const listeners = new Set();

/** Call `listener(chat, turn)` whenever something of an answer has come. */
export function onChange(listener) {
  listeners.add(listener);
}

/** The answer that comes in this conversation: what is known of it beside its text. */
export function live(chat) {
  return coming.get(chat.id);
}

// A reload shows at once all that its reader had seen.
addEventListener("pagehide", () => {
  if (isAnyComing()) keepAtOnce([...coming].map(([chat, { turn }]) => ({ chat, turn: turn.id, text: turn.text, thinking: turn.thinking ?? "" })));
});

export function stop(chat) {
  coming.get(chat.id)?.abort.abort();
}

export function isAnyComing() {
  return coming.size > 0;
}

/** Let the answer `turn` come, from its beginning; when it is here already in part, that is shown meanwhile. */
export async function run(chat, turn) {
  if (coming.has(chat.id)) return;
  const answer = { turn, abort: new AbortController(), text: "", thinking: "", reading: null, note: "", pieces: 0, began: performance.now(), first: 0 };
  coming.set(chat.id, answer);
  turn.state = "coming";
  turn.error = "";
  changed(chat, turn);
  try {
    await whileAlone(chat, () => ask(bodyOf(chat, turn), readers(chat, answer), answer.abort.signal));
    Object.assign(turn, { state: "done", text: answer.text, thinking: answer.thinking });
  } catch (error) {
    if (answer.abort.signal.aborted) turn.state = "stopped";
    else Object.assign(turn, { state: error instanceof Refused && error.status === 0 ? "cut" : "failed", error: error.message });
  } finally {
    coming.delete(chat.id);
    chat.updated = Date.now();
    await keep(chat);
    changed(chat, turn);
  }
}

/** In two tabs with one conversation, only one asks. */
async function whileAlone(chat, act) {
  if (!navigator.locks) return act();
  return navigator.locks.request(`swarm-chat-${chat.id}`, { ifAvailable: true }, (lock) => {
    if (!lock) throw new Refused("this answer comes in another tab", 409);
    return act();
  });
}

function bodyOf(chat, turn) {
  const body = { model: turn.asked, messages: messages(chat, turn, turn.system), seed: turn.seed };
  for (const [name, value] of [["temperature", turn.temperature], ["max_tokens", turn.max_tokens]]) {
    if (typeof value === "number") body[name] = value;
  }
  if (typeof turn.thinks === "boolean") body.chat_template_kwargs = { enable_thinking: turn.thinks };
  return body;
}

function readers(chat, answer) {
  const { turn } = answer;
  let keptAt = 0;
  const come = () => {
    answer.pieces += 1;
    answer.first ||= performance.now();
    answer.reading = null;
    if (answer.text.length >= turn.text.length) turn.text = answer.text;
    if (answer.thinking.length >= (turn.thinking ?? "").length) turn.thinking = answer.thinking;
    if (performance.now() > keptAt + KEEP_MS) {
      keptAt = performance.now();
      keep(chat);
    }
    changed(chat, turn);
  };
  return {
    text: (text) => { answer.text += text; answer.thought ||= answer.thinking ? performance.now() : 0; come(); },
    thinking: (text) => { answer.thinking += text; come(); },
    reading: (done, total) => { answer.reading = [done, total]; changed(chat, turn); },
    note: (text, kind) => {
      answer.note = kind === "changed" ? "" : text;
      if (kind === "changed" && text) turn.notes = [...(turn.notes ?? []), text];
      changed(chat, turn);
    },
    figures: ({ usage, timings, finish }) => {
      turn.finish = finish;
      turn.stats = {
        prompt: usage.prompt_tokens, generated: usage.completion_tokens, cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
        guessed: timings.draft_n_accepted ?? 0, first_s: timings.first_token_s ?? 0, decode_s: timings.decode_s ?? 0,
      };
    },
  };
}

function changed(chat, turn) {
  for (const listener of listeners) listener(chat, turn);
}
