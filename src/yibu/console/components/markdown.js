/** A Markdown text, which may still grow. */
import { html, render, useEffect, useRef } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { blocksOf, colour, fragmentOf } from "../lib/markdown.js";
import { Copy } from "./copy.js";

const MILLISECONDS_BETWEEN = 80;
const MILLISECONDS_AT_ONCE = 40;

export function Markdown({ text, final = true }) {
  const element = useRef(null);
  const drawing = useRef({ wanted: null, running: false, blocks: [] });
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
      await drawBlocks(element, drawing.blocks, await blocksOf(text), final);
    } catch (error) {
      drawing.blocks.length = 0;
      element.current?.replaceChildren(text);
      console.error("an answer is shown without its markup", error);
    }
    if (!final) await pause(MILLISECONDS_BETWEEN);
  }
  drawing.running = false;
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Draw the blocks that differ from those `drawn`; a long text leaves the page time for what a person does. */
async function drawBlocks(element, drawn, blocks, final) {
  let since = performance.now();
  for (const [index, block] of blocks.entries()) {
    if (!element.current) return;
    const known = drawn[index];
    const ended = final || index < blocks.length - 1;
    if (known?.raw === block.raw && known.links === block.links) {
      if (ended && !known.ended) await colour(known.node);
      known.ended = ended;
      continue;
    }
    const fragment = await fragmentOf(block);
    if (ended) await colour(fragment);
    addCopyButtons(fragment);
    const node = document.createElement("div");
    node.className = "markdown-block";
    node.append(fragment);
    if (known) known.node.replaceWith(node);
    else if (index) drawn[index - 1].node.after(node);
    else element.current?.replaceChildren(node);
    drawn[index] = { raw: block.raw, links: block.links, ended, node };
    if (performance.now() - since < MILLISECONDS_AT_ONCE) continue;
    await pause(0);
    since = performance.now();
  }
  drawn.splice(blocks.length).forEach(({ node }) => node.remove());
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
