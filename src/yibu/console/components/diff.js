import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";

function kindOf(line) {
  if (line.startsWith("+++") || line.startsWith("---")) return "muted";
  if (line.startsWith("@@")) return "hunk";
  if (line.startsWith("+")) return "plus";
  return line.startsWith("-") ? "minus" : "";
}

/** A unified diff. */
export function Diff({ text }) {
  return html`<pre class="diff" tabindex="0" aria-label=${t("Differences")}>${text.trimEnd().split("\n").map((line, index) => html`<span
    key=${index} class=${kindOf(line)}>${line || " "}</span>`)}</pre>`;
}
