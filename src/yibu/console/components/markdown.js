/** A Markdown text, which may still grow. */
import { html, render, useEffect, useRef } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { rendered } from "../lib/markdown.js";
import { Copy } from "./copy.js";

const MILLISECONDS_BETWEEN = 80;

export function Markdown({ text, final = true }) {
  const element = useRef(null);
  const drawing = useRef({ wanted: null, running: false });
  useEffect(() => {
    drawing.current.wanted = { text, final };
    if (!drawing.current.running) void draw(element, drawing.current);
  }, [text, final]);
  return html`<div class="markdown" ref=${element}></div>`;
}

/** Draw the latest text, again and again while newer ones come. */
async function draw(element, drawing) {
  drawing.running = true;
  while (drawing.wanted) {
    const { text, final } = drawing.wanted;
    drawing.wanted = null;
    try {
      const fragment = await rendered(text, final);
      addCopyButtons(fragment);
      element.current?.replaceChildren(fragment);
    } catch (error) {
      element.current?.replaceChildren(text);
      console.error("an answer is shown without its markup", error);
    }
    if (!final) await new Promise((resolve) => setTimeout(resolve, MILLISECONDS_BETWEEN));
  }
  drawing.running = false;
}

function addCopyButtons(fragment) {
  for (const block of fragment.querySelectorAll("pre")) {
    const code = block.querySelector("code");
    if (!code) continue;
    const language = /language-([\w+#-]+)/.exec(code.className)?.[1] ?? "";
    const box = document.createElement("div");
    box.className = "code-block";
    block.replaceWith(box);
    const bar = document.createElement("div");
    bar.className = "code-bar";
    box.append(bar, block);
    block.tabIndex = 0;
    render(html`<span>${language}</span><${Copy} text=${() => code.textContent} label=${t("Copy the code")} />`, bar);
  }
}
