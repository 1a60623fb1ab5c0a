// The node behind the page: its API, its events, and the key that lets this browser change things.

const KEY = "swarm-key";

/** The key that `swarm page` gave this tab; empty for those who only look and chat. */
export const key = {
  get: () => sessionStorage.getItem(KEY) ?? "",
  set: (value) => sessionStorage.setItem(KEY, value),
};

/** What the node said instead of doing it. */
export class Refused extends Error {
  constructor(text, status) {
    super(text);
    this.status = status;
  }
}

function headers(more) {
  return { ...(key.get() && { authorization: `Bearer ${key.get()}` }), ...more };
}

async function checked(response) {
  if (response.ok) return response;
  const text = await response.text();
  let said = text;
  try {
    const error = JSON.parse(text).error;
    said = error?.message ?? error ?? text;
  } catch { /* not of the node: shown as it is */ }
  throw new Refused(String(said).slice(0, 500) || `the node answered ${response.status}`, response.status);
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the node on this device does not answer; `swarm join` starts it", 0);
  }
  return checked(response);
}

export async function get(path) {
  return (await call(path, { headers: headers() })).json();
}

export async function post(path, body, signal) {
  return (await call(path, { ...posted(body), signal })).json();
}

function posted(body, more) {
  return { method: "POST", body: JSON.stringify(body), headers: headers({ "content-type": "application/json", ...more }) };
}

function lost(error) {
  if (error.name === "AbortError") throw error;
  throw new Refused("the connection to the node was lost in the middle of the answer", 0);
}

/** The events of a stream: {event, data} one after the other; data as text. */
async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read().catch(lost);
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        let event = "";
        const data = [];
        for (const line of part.split("\n")) {
          if (line.startsWith("event: ")) event = line.slice(7);
          else if (line.startsWith("data: ")) data.push(line.slice(6));
        }
        yield { event, data: data.join("\n") };
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Ask for an answer; what comes is told to `on`: text, thinking, reading, note, figures. Throws Refused. */
export async function ask(body, on, signal) {
  const path = "/v1/chat/completions";
  const response = await call(path, { ...posted({ ...body, stream: true }, { "x-swarm-events": "1" }), signal });
  let ended = false;
  for await (const { event, data } of eventsOf(response)) {
    if (!data) continue;
    if (data === "[DONE]") continue;
    const value = JSON.parse(data);
    if (value.error) throw new Refused(value.error.message ?? String(value.error), 200);
    if (event === "swarm") value.reading ? on.reading(...value.reading) : on.note(value.note, value.kind);
    else if (value.choices?.length) {
      const { delta = {}, finish_reason: reason } = value.choices[0];
      if (delta.reasoning_content) on.thinking(delta.reasoning_content);
      if (delta.content) on.text(delta.content);
      ended ||= Boolean(reason);
    } else if (value.usage) on.figures({ usage: value.usage, timings: value.timings ?? {}, finish: value.swarm_finish ?? "" });
  }
  if (!ended) lost({});
}

const SILENT_MS = 12_000;  // the node writes at least a comment every five seconds

/** The state of the swarm, again and again until the page is closed; null while the node does not answer. */
export async function watch(onState) {
  for (;;) {
    const abort = new AbortController();
    let timer = setTimeout(() => abort.abort(), SILENT_MS);
    try {
      const response = await call("/swarm/events", { headers: headers(), signal: abort.signal });
      for await (const { event, data } of eventsOf(response)) {
        clearTimeout(timer);
        timer = setTimeout(() => abort.abort(), SILENT_MS);
        if (event === "state") onState(JSON.parse(data));
      }
    } catch { /* told below */ }
    clearTimeout(timer);
    abort.abort();
    onState(null);
    await new Promise((wake) => setTimeout(wake, 1000));
  }
}
