// Colours for code: words, strings, numbers and comments, told apart without knowing the language well.

import { h } from "./dom.js";

const MAX_CHARS = 40_000;  // longer code stays plain: colouring it again with each token would be felt
const WORDS = new Set((
  "abstract and as assert async await begin bool boolean break byte case catch char class const constexpr continue def "
  + "default defer del delete do double elif else elsif end enum except export extends extern false False final finally "
  + "float fn for foreach from func function global go goto if impl implements import in include inline int interface is "
  + "lambda let long loop match mod module mut namespace new nil None nonlocal not null nullptr of operator or override "
  + "package pass private protected pub public raise range readonly ref return self short signed sizeof static str string "
  + "struct super switch template then this throw throws trait true True try type typedef typename union unless unsafe "
  + "unsigned until use using var virtual void volatile when where while with yield "
  + "select insert update create drop alter table into values join left right inner outer group order by having limit "
  + "echo done fi esac sudo"
).split(" "));
const HASH = new Set(["", "python", "py", "bash", "sh", "shell", "zsh", "console", "ruby", "rb", "yaml", "yml", "toml", "ini",
  "perl", "r", "make", "makefile", "dockerfile", "nix", "conf", "elixir"]);
const STRINGS = `"(?:[^"\\\\\\n]|\\\\.)*"?|'(?:[^'\\\\\\n]|\\\\.)*'|\`(?:[^\`\\\\]|\\\\.)*\``;
const NUMBERS = "\\b(?:0[xXbBoO][\\da-fA-F_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\b";
const NAMES = "[A-Za-z_$][\\w$]*";

/** The pieces of `text`: plain strings, and spans with a class. */
export function highlighted(text, language) {
  const name = language.toLowerCase();
  if (text.length > MAX_CHARS || ["text", "txt", "plain", "markdown", "md"].includes(name)) return [text];
  const comments = HASH.has(name) ? "#[^\\n]*" : name === "sql" || name === "lua" || name === "haskell" ? "--[^\\n]*"
    : name === "html" || name === "xml" || name === "svg" ? "<!--[^]*?(?:-->|$)" : "\\/\\/[^\\n]*|\\/\\*[^]*?(?:\\*\\/|$)";
  const long = name === "python" || name === "py" ? `"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|` : "";
  const pattern = new RegExp(`(${comments})|(${long}${STRINGS})|(${NUMBERS})|(${NAMES})`, "g");
  const out = [];
  let last = 0;
  for (const found of text.matchAll(pattern)) {
    const kind = found[1] ? "comment" : found[2] ? "string" : found[3] ? "number" : kindOfName(found[4], text, found.index, name);
    if (!kind) continue;
    out.push(text.slice(last, found.index), h("span", { class: `code-${kind}` }, found[0]));
    last = found.index + found[0].length;
  }
  return [...out, text.slice(last)];
}

function kindOfName(word, text, at, language) {
  if (WORDS.has(language === "sql" ? word.toLowerCase() : word)) return "word";
  return text[at + word.length] === "(" ? "call" : "";
}
