// A conversation is a tree: editing a question or asking again makes a branch beside what was there. Pure.

export const SEEDS = 2 ** 32;

export function newChat(now = Date.now()) {
  return { id: newId(), title: "", created: now, updated: now, turns: {}, leaf: null };
}

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return Array.from(bytes, (byte) => byte.toString(36).padStart(2, "0")).join("");
}

/** Add a turn under `parent` (null: it begins the conversation) and go there. */
export function add(chat, parent, role, fields) {
  const turn = { id: newId(), parent, role, text: "", at: Date.now(), ...fields };
  chat.turns[turn.id] = turn;
  chat.leaf = turn.id;
  chat.updated = turn.at;
  if (!chat.title && role === "user") chat.title = titleOf(turn);
  return turn;
}

export function titleOf(turn) {
  const line = (turn.text.trim() || turn.files?.[0]?.name || "").split("\n")[0];
  return line.length > 60 ? `${line.slice(0, 59)}…` : line;
}

/** The turns from the beginning to the one that is shown last. */
export function path(chat, leaf = chat.leaf) {
  const turns = [];
  for (let turn = chat.turns[leaf]; turn; turn = chat.turns[turn.parent]) turns.unshift(turn);
  return turns;
}

/** The turns that stand in the same place, oldest first. */
export function siblings(chat, turn) {
  return Object.values(chat.turns).filter((other) => other.parent === turn.parent).sort((a, b) => a.at - b.at);
}

/** Show the branch of `turn`, as far as it was gone on with last. */
export function select(chat, turn) {
  chat.leaf = turn.id;
  for (;;) {
    const next = Object.values(chat.turns).filter((other) => other.parent === chat.leaf).sort((a, b) => b.at - a.at)[0];
    if (!next) return;
    chat.leaf = next.id;
  }
}

/** What the model is told: everything before `turn`, with the files inside the questions. */
export function messages(chat, turn, system) {
  const told = path(chat, turn.parent).map((each) => ({ role: each.role, content: contentOf(each) }));
  const said = told.filter((message) => message.content || message.role === "user");
  return system ? [{ role: "system", content: system }, ...said] : said;
}

/** A question as the model reads it: each file under its name, then the text. */
export function contentOf(turn) {
  const files = (turn.files ?? []).map((file) => {
    const fence = "`".repeat(Math.max(3, ...(file.text.match(/`{3,}/g) ?? []).map((run) => run.length + 1)));
    return `${file.name}:\n${fence}\n${file.text.replace(/\n$/, "")}\n${fence}\n`;
  });
  return [...files, turn.text].join("\n").trim();
}

/** The conversation as it is shown, as Markdown. */
export function asMarkdown(chat) {
  const parts = path(chat).map((turn) => `## ${turn.role === "user" ? "You" : turn.model || "Swarm"}\n\n${contentOf(turn)}\n`);
  return `# ${chat.title}\n\n${parts.join("\n")}`;
}

/** Whether every word of `text` stands somewhere in the conversation. */
export function contains(chat, text) {
  const all = [chat.title, ...Object.values(chat.turns).map((turn) => turn.text)].join("\n").toLowerCase();
  return text.toLowerCase().split(/\s+/).every((word) => all.includes(word));
}

/** A conversation from a file that this page wrote; null when it is none. */
export function imported(value) {
  const isChat = value && typeof value.id === "string" && typeof value.title === "string" && value.turns && typeof value.turns === "object";
  if (!isChat) return null;
  const turns = {};
  for (const turn of Object.values(value.turns)) {
    const isTurn = typeof turn?.id === "string" && ["user", "assistant"].includes(turn.role) && typeof turn.text === "string";
    if (!isTurn || (turn.parent !== null && typeof turn.parent !== "string")) return null;
    const files = (Array.isArray(turn.files) ? turn.files : []).map((file) => ({ name: String(file?.name), text: String(file?.text) }));
    const { id, parent, role, text } = turn;
    turns[id] = { id, parent, role, text, files, at: Number(turn.at) || 0, thinking: String(turn.thinking ?? ""), model: String(turn.model ?? "") };
  }
  const leaf = typeof value.leaf === "string" && turns[value.leaf] ? value.leaf : null;
  if (hasLoop(turns)) return null;
  return { id: newId(), title: value.title.slice(0, 200), created: Number(value.created) || 0, updated: Date.now(), turns, leaf };
}

function hasLoop(turns) {
  return Object.values(turns).some((turn) => {
    let steps = 0;
    for (let at = turn; at; at = turns[at.parent]) if ((steps += 1) > Object.keys(turns).length) return true;
    return false;
  });
}
