// Markdown as models write it, as elements. Nothing becomes markup that is not built here: HTML stays text, pictures
// become links (showing one would tell another host what is read here), and only http, https and mailto are followed.

import { copyButton, h } from "./dom.js";
import { highlighted } from "./highlight.js";

const MAX_DEPTH = 12;  // of quotes and lists inside each other; deeper ones stay text
const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*?)[ \t#]*$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const ITEM = /^( {0,11})([-*+]|\d{1,9}[.)])(?:[ \t]+(.*)|$)/;
const DELIMITERS = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const LINK = /\[((?:[^[\]\\]|\\.){0,500})\]\([ \t]*<?((?:[^\s<>()]|\([^\s<>()]*\)){0,2000})>?(?:[ \t]+"[^"]{0,500}")?[ \t]*\)/y;
const BARE = /https?:\/\/[^\s<>"'`\\]{1,2000}/y;
const BREAK = /<br ?\/?>/y;
const TASK = /^\[([ xX])\] /;

/** Show `text` in `container`; blocks that have not changed since the last time stay as they are. */
export function update(container, text) {
  const blocks = blocksOf(text.split("\n"));
  blocks.forEach((block, i) => {
    const old = container.children[i];
    if (old && old.source === block.source) return;
    const element = build(block, 0);
    element.source = block.source;
    if (old) old.replaceWith(element);
    else container.append(element);
  });
  while (container.children.length > blocks.length) container.lastElementChild.remove();
}

// ---- blocks: {kind, source, ...} one after the other

function blocksOf(lines) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) { at += 1; continue; }
    const [block, next] = blockAt(lines, at);
    block.source = `${block.kind}\n${lines.slice(at, next).join("\n")}`;
    blocks.push(block);
    at = next;
  }
  return blocks;
}

function blockAt(lines, at) {
  const line = lines[at];
  let found;
  if ((found = FENCE.exec(line))) return fence(lines, at, found);
  if ((found = HEADING.exec(line))) return [{ kind: "heading", level: found[1].length, text: found[2] }, at + 1];
  if (RULE.test(line)) return [{ kind: "rule" }, at + 1];
  if (/^ {0,3}>/.test(line)) return quote(lines, at);
  if (ITEM.test(line)) return list(lines, at);
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at);
}

function fence(lines, at, [, mark, language]) {
  const closing = new RegExp(`^ {0,3}${mark[0]}{${mark.length},}[ \\t]*$`);
  let end = at + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  const text = lines.slice(at + 1, end).join("\n");
  return [{ kind: "code", language: language.trim().split(/\s/)[0], text }, Math.min(end + 1, lines.length)];
}

function quote(lines, at) {
  let end = at;
  while (end < lines.length && /^ {0,3}>/.test(lines[end])) end += 1;
  return [{ kind: "quote", lines: lines.slice(at, end).map((line) => line.replace(/^ {0,3}> ?/, "")) }, end];
}

function list(lines, at) {
  const [, indent, mark] = ITEM.exec(lines[at]);
  const ordered = /\d/.test(mark);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const found = ITEM.exec(lines[end]);
    const isNext = found && found[1].length <= indent.length + 1 && /\d/.test(found[2]) === ordered && !RULE.test(lines[end]);
    if (!isNext) break;
    const [item, next] = listItem(lines, end, found);
    items.push(item);
    end = next;
    let blank = end;
    while (blank < lines.length && !lines[blank].trim()) blank += 1;
    if (blank > end && blank < lines.length && ITEM.test(lines[blank])) end = blank;
  }
  return [{ kind: "list", ordered, start: parseInt(mark, 10), items }, Math.max(end, at + 1)];
}

function listItem(lines, at, [, indent, mark, rest]) {
  const inner = [rest ?? ""];
  const width = indent.length + mark.length + 1;
  let end = at + 1;
  for (; end < lines.length; end += 1) {
    const line = lines[end];
    const depth = line.search(/\S/);
    if (depth < 0) {
      const next = lines.slice(end).find((each) => each.trim());
      if (next === undefined || next.search(/\S/) < indent.length + 2) break;
      inner.push("");
    } else if (depth >= indent.length + 2) {
      inner.push(line.slice(Math.min(depth, width)));
    } else if (ITEM.test(line) || FENCE.test(line) || HEADING.test(line) || RULE.test(line)) {
      break;
    } else if (lines[end - 1].trim()) {
      inner.push(line.trim());
    } else break;
  }
  return [inner, end];
}

function isTable(lines, at) {
  return lines[at].includes("|") && at + 1 < lines.length && lines[at + 1].includes("-") && DELIMITERS.test(lines[at + 1])
    && cells(lines[at]).length === cells(lines[at + 1]).length;
}

function table(lines, at) {
  let end = at + 2;
  while (end < lines.length && lines[end].trim() && lines[end].includes("|")) end += 1;
  const sides = cells(lines[at + 1]).map((each) => (/^:.*:$/.test(each) ? "center" : each.endsWith(":") ? "right" : ""));
  return [{ kind: "table", head: cells(lines[at]), sides, rows: lines.slice(at + 2, end).map(cells) }, end];
}

function cells(line) {
  const parts = [""];
  let inCode = false;
  const text = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  for (let i = 0; i < text.length; i += 1) {
    if (text[i] === "`") inCode = !inCode;
    if (text[i] === "\\" && text[i + 1] === "|") { parts[parts.length - 1] += "|"; i += 1; }
    else if (text[i] === "|" && !inCode) parts.push("");
    else parts[parts.length - 1] += text[i];
  }
  return parts.map((part) => part.trim());
}

function paragraph(lines, at) {
  let end = at + 1;
  while (end < lines.length && lines[end].trim() && !startsBlock(lines, end)) end += 1;
  return [{ kind: "paragraph", text: lines.slice(at, end).join("\n") }, end];
}

function startsBlock(lines, at) {
  const line = lines[at];
  return FENCE.test(line) || HEADING.test(line) || RULE.test(line) || /^ {0,3}>/.test(line) || isTable(lines, at)
    || /^ {0,3}(?:[-*+]|1[.)])[ \t]+\S/.test(line);
}

// ---- elements

const BUILDERS = {
  heading: (block) => h(`h${Math.min(block.level + 2, 6)}`, null, inline(block.text)),
  rule: () => h("hr"),
  paragraph: (block) => h("p", null, inline(block.text)),
  code: (block) => codeBlock(block.language, block.text),
  quote: (block, depth) => h("blockquote", null, nested(block.lines, depth)),
  list: (block, depth) => h(block.ordered ? "ol" : "ul", block.ordered && block.start !== 1 ? { start: block.start } : null,
    block.items.map((item) => listElement(item, depth))),
  table: (block) => h("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, h("table", null,
    h("thead", null, h("tr", null, block.head.map((cell, i) => h("th", { scope: "col", class: block.sides[i] }, inline(cell))))),
    h("tbody", null, block.rows.map((row) => h("tr", null,
      block.head.map((_, i) => h("td", { class: block.sides[i] }, inline(row[i] ?? "")))))))),
};

function build(block, depth) {
  return BUILDERS[block.kind](block, depth);
}

function nested(lines, depth) {
  if (depth >= MAX_DEPTH) return h("p", null, lines.join("\n"));
  return blocksOf(lines).map((block) => build(block, depth + 1));
}

function listElement(lines, depth) {
  const task = TASK.exec(lines[0]);
  const inner = task ? [lines[0].slice(4), ...lines.slice(1)] : lines;
  const blocks = nested(inner, depth);
  const tight = Array.isArray(blocks) && blocks.length && blocks[0].tagName === "P" && !inner.includes("");
  const content = tight ? [[...blocks[0].childNodes], blocks.slice(1)] : blocks;
  const box = task && h("input", { type: "checkbox", disabled: true, checked: task[1] !== " ", "aria-label": "done" });
  return h("li", task ? { class: "task" } : null, box, content);
}

/** A block of code with its language and a button that copies it. */
export function codeBlock(language, text) {
  const bar = h("div", { class: "code-bar" }, h("span", null, language || "text"), copyButton(() => text));
  const code = h("code", null, highlighted(text, language));
  return h("figure", { class: "code" }, bar, h("pre", { tabindex: "0" }, code));
}

// ---- text inside a block

function inline(text, depth = 0) {
  const out = [];
  let plain = "";
  const put = (node) => { if (plain) out.push(plain); plain = ""; if (node) out.push(node); };
  for (let at = 0; at < text.length;) {
    const [node, length] = depth < MAX_DEPTH ? spanAt(text, at, depth) : [null, 0];
    if (length) { typeof node === "string" ? (plain += node) : put(node); at += length; }
    else { plain += text[at]; at += 1; }
  }
  put(null);
  return out;
}

const NOTHING = [null, 0];

function spanAt(text, at, depth) {
  switch (text[at]) {
    case "\\": return /[!-/:-@[-`{-~]/.test(text[at + 1] ?? "") ? [text[at + 1], 2] : NOTHING;
    case "\n": return [h("br"), 1];
    case "`": return code(text, at);
    case "*": case "_": return emphasis(text, at, depth);
    case "~": return text.startsWith("~~", at) ? between(text, at, "~~", "del", depth) : NOTHING;
    case "!": return text[at + 1] === "[" ? link(text, at + 1, depth, true) : NOTHING;
    case "[": return link(text, at, depth, false);
    case "h": return bareLink(text, at);
    case "<": return matched(BREAK, text, at) ? [h("br"), matched(BREAK, text, at)[0].length] : NOTHING;
    default: return NOTHING;
  }
}

function matched(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function code(text, at) {
  const mark = /^`+/.exec(text.slice(at, at + 20))[0];
  let end = text.indexOf(mark, at + mark.length);
  while (end >= 0 && text[end + mark.length] === "`") {
    while (text[end] === "`") end += 1;
    end = text.indexOf(mark, end);
  }
  if (end < 0) return [mark, mark.length];
  const inner = text.slice(at + mark.length, end).replace(/\n/g, " ");
  return [h("code", null, /^ .*\S.* $/.test(inner) ? inner.slice(1, -1) : inner), end + mark.length - at];
}

function emphasis(text, at, depth) {
  const char = text[at];
  if (char === "_" && /\w/.test(text[at - 1] ?? "")) return NOTHING;
  const mark = text[at + 1] === char ? char + char : char;
  return between(text, at, mark, mark.length === 2 ? "strong" : "em", depth);
}

function between(text, at, mark, tag, depth) {
  const begin = at + mark.length;
  if (!/\S/.test(text[begin] ?? " ")) return NOTHING;
  for (let end = text.indexOf(mark, begin + 1); end >= 0; end = text.indexOf(mark, end + 1)) {
    const isLonger = mark.length === 1 && (text[end + 1] === mark || text[end - 1] === mark);
    const isInWord = mark[0] === "_" && /\w/.test(text[end + mark.length] ?? "");
    if (/\s/.test(text[end - 1]) || isLonger || isInWord) continue;
    while (mark.length === 2 && text[end + 2] === mark[0]) end += 1;  // ***both***
    return [h(tag, null, inline(text.slice(begin, end), depth + 1)), end + mark.length - at];
  }
  return [mark, mark.length];
}

function link(text, at, depth, isPicture) {
  const found = matched(LINK, text, at);
  if (!found) return NOTHING;
  const label = isPicture ? `picture: ${found[1] || "without a name"}` : found[1] || found[2];
  const length = found[0].length + (isPicture ? 1 : 0);
  const inner = inline(label, Math.max(depth + 1, MAX_DEPTH - 2));
  return [anchor(found[2], inner) ?? h("span", null, inner), length];
}

function bareLink(text, at) {
  const found = matched(BARE, text, at);
  if (!found || /\w/.test(text[at - 1] ?? "")) return NOTHING;
  let url = found[0].replace(/[.,:;!?*_~]+$/, "");
  while (/[)\]]$/.test(url) && !/[([]/.test(url)) url = url.slice(0, -1);
  return [anchor(url, url) ?? url, url.length];
}

function anchor(href, content) {
  if (!/^(https?:\/\/|mailto:)/i.test(href)) return null;
  return h("a", { href, target: "_blank", rel: "noopener noreferrer" }, content);
}
