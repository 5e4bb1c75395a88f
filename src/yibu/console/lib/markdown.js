/**
 * Markdown to sanitised document fragments, one a block: while a text grows, only its end is drawn anew. Formulas are taken out before the parser sees them and
 * put in by KaTeX as elements; nothing in the result can load anything or carry a style of its own.
 */
import { highlight, katex, marked, purify } from "./load.js";

const FORMULA = /^(?:\$\$([\s\S]+?)\$\$|\\\[([\s\S]+?)\\\])/;
const INLINE = /^(?:\\\(([\s\S]+?)\\\)|\$(?![\s\d])((?:\\.|[^\\\n$])+?)(?<!\s)\$(?!\d))/;

const escaped = (text) => text.replace(/[&<>"]/g, (one) => `&#${one.charCodeAt(0)};`);
const placeholder = (tex, display) =>
  `<span class="formula" data-display="${display}">${escaped(tex)}</span>`;

function starts(source, marks) {
  const found = marks.map((mark) => source.indexOf(mark)).filter((index) => index >= 0);
  return found.length ? Math.min(...found) : undefined;
}

const block = {
  name: "formulaBlock", level: "block",
  start: (source) => starts(source, ["$$", "\\["]),
  tokenizer(source) {
    const found = FORMULA.exec(source);
    return found ? { type: "formulaBlock", raw: found[0], tex: found[1] ?? found[2] } : undefined;
  },
  renderer: (token) => placeholder(token.tex, true),
};
const inline = {
  name: "formula", level: "inline",
  start: (source) => starts(source, ["$", "\\("]),
  tokenizer(source) {
    const found = INLINE.exec(source) ?? FORMULA.exec(source);
    if (!found) return undefined;
    return { type: "formula", raw: found[0], tex: found[1] ?? found[2], display: FORMULA.test(found[0]) };
  },
  renderer: (token) => placeholder(token.tex, token.display),
};

let parser = null;

async function tools() {
  const [library, sanitizer] = await Promise.all([marked(), purify()]);
  if (!parser) {
    parser = new library.Marked({ gfm: true, breaks: true, extensions: [block, inline] });
    parser.use({ renderer: { image: ({ href, text }) => picture(href, text), html: ({ text }) => bareTags(text) } });
  }
  return sanitizer;
}

const BARE_TAG = /(<\/?(?:b|br|details|em|i|kbd|s|strong|sub|summary|sup)\s*\/?>)/i;

/** Of HTML in an answer, the few tags without attributes that format text; the rest is shown as text. */
function bareTags(text) {
  return text.split(BARE_TAG).map((part, index) => (index % 2 ? part : escaped(part))).join("");
}

/** Pictures without markup of their own; SVG has scripts. */
const PICTURE = /^data:image\/(?:png|jpeg|gif|webp);base64,/i;

/** A picture in an answer is a link: loading it would tell its server that the answer was read. */
function picture(href, text) {
  if (PICTURE.test(href)) return `<img src="${escaped(href)}" alt="${escaped(text)}">`;
  return `<a href="${escaped(href)}">${escaped(text || href)}</a>`;
}

const ALLOWED = {
  ALLOWED_TAGS: [
    "a", "b", "blockquote", "br", "code", "del", "details", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "i",
    "img", "input", "kbd", "li", "ol", "p", "pre", "s", "span", "strong", "sub", "summary", "sup", "table", "tbody",
    "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["href", "src", "alt", "title", "class", "data-display", "start", "align", "type", "checked", "disabled", "open"],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|#|data:image\/(?:png|jpeg|gif|webp);base64,)/i,
  ADD_URI_SAFE_ATTR: ["data-display", "start", "align", "type"],
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};

const folds = (token) => (token.type === "html" ? token.raw.match(/<details/gi)?.length ?? 0 : 0);
const unfolds = (token) => (token.type === "html" ? token.raw.match(/<\/details/gi)?.length ?? 0 : 0);

/** The blocks of a text as {raw, links, tokens}: two with the same `raw` and `links` look the same. */
export async function blocksOf(text) {
  await tools();
  const tokens = parser.lexer(text);
  const links = JSON.stringify(tokens.links);
  const blocks = [];
  let depth = 0;
  for (const token of tokens.filter(({ type }) => type !== "space" && type !== "def")) {
    if (depth > 0) {
      const open = blocks.at(-1);
      open.raw += token.raw;
      open.tokens.push(token);
    } else blocks.push({ raw: token.raw, links, tokens: [token] });
    depth = Math.max(0, depth + folds(token) - unfolds(token));
  }
  return blocks;
}

/** The fragment of one block; its code is not coloured yet. */
export async function fragmentOf({ tokens }) {
  const sanitizer = await tools();
  const fragment = sanitizer.sanitize(parser.parser(tokens), ALLOWED);
  for (const image of fragment.querySelectorAll("img")) {
    if (!PICTURE.test(image.src)) image.remove();
  }
  for (const element of fragment.querySelectorAll("[class]")) {
    if (!/^(formula|language-[\w+#-]+)$/.test(element.className)) element.removeAttribute("class");
  }
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const box of fragment.querySelectorAll("input")) {
    if (box.type === "checkbox") box.disabled = true;
    else box.remove();
  }
  await formulas(fragment);
  return fragment;
}

async function formulas(fragment) {
  const found = fragment.querySelectorAll(".formula");
  if (!found.length) return;
  const library = await katex();
  for (const element of found) {
    const displayMode = element.dataset.display === "true";
    library.render(element.textContent, element, { displayMode, throwOnError: false, trust: false, strict: "ignore" });
  }
}

/** Colour the code of a block that grows no more. */
export async function colour(fragment) {
  const found = [...fragment.querySelectorAll("pre code")];
  if (!found.length) return;
  const library = await highlight();
  for (const element of found) {
    const named = /language-([\w+#-]+)/.exec(element.className)?.[1];
    if (!named || !library.getLanguage(named)) continue;
    const safe = library.highlight(element.textContent, { language: named }).value; // escapes what it colours
    element.innerHTML = safe;
    element.classList.add("hljs");
  }
}
