// What this browser keeps: conversations in its own database, choices beside them. Nothing of it is on the node.

const NAME = "swarm";
const CHATS = "chats";
let opened;
const inMemory = new Map();  // where a browser has no database, as in a private window

function database() {
  opened ??= new Promise((resolve) => {
    const request = globalThis.indexedDB?.open(NAME, 1);
    if (!request) return resolve(null);
    request.onupgradeneeded = () => request.result.createObjectStore(CHATS, { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
    return undefined;
  });
  return opened;
}

async function within(mode, act) {
  const db = await database();
  if (!db) return null;
  return new Promise((resolve, reject) => {
    const transaction = db.transaction(CHATS, mode);
    const request = act(transaction.objectStore(CHATS));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = () => reject(transaction.error);
  });
}

/** All conversations, the newest first. */
export async function chats() {
  const all = (await within("readonly", (store) => store.getAll())) ?? [...inMemory.values()];
  return all.sort((a, b) => b.updated - a.updated);
}

export async function chat(id) {
  const found = (await within("readonly", (store) => store.get(id))) ?? inMemory.get(id);
  return found && withUnkept(found);
}

export async function keep(value) {
  if (await database()) return within("readwrite", (store) => store.put(value));
  return inMemory.set(value.id, value);
}

export async function forget(id) {
  inMemory.delete(id);
  takeUnkept(id);
  return within("readwrite", (store) => store.delete(id));
}

const UNKEPT = "swarm-unkept";

/** Keep turns that have grown since `keep`, each `{ chat, turn, text, thinking }`, by their ids: a page that goes has no time for its database. */
export function keepAtOnce(turns) {
  try {
    localStorage.setItem(UNKEPT, JSON.stringify(turns));
  } catch {
    // Full or forbidden: the answer comes again anyway.
  }
}

/** What was kept at once of a conversation, which is no longer kept then. */
function takeUnkept(id) {
  try {
    const all = JSON.parse(localStorage.getItem(UNKEPT)) ?? [];
    const rest = all.filter((turn) => turn.chat !== id);
    if (rest.length < all.length) keepAtOnce(rest);
    return all.filter((turn) => turn.chat === id);
  } catch {
    return [];
  }
}

function withUnkept(chat) {
  for (const { turn: turnId, text, thinking } of takeUnkept(chat.id)) {
    const turn = chat.turns[turnId];
    if (!["coming", "cut"].includes(turn?.state)) continue;
    if (text.length > turn.text.length) turn.text = text;
    if (thinking.length > (turn.thinking ?? "").length) turn.thinking = thinking;
  }
  return chat;
}

const CHOICES = "swarm-choices";

/** What the user has chosen: model, temperature, theme and so on. */
export function choices() {
  try {
    return JSON.parse(localStorage.getItem(CHOICES)) ?? {};
  } catch {
    return {};
  }
}

export function choose(more) {
  localStorage.setItem(CHOICES, JSON.stringify({ ...choices(), ...more }));
}
