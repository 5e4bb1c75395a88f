/** A bar of parts of a whole. */
import { html } from "../lib/html.js";

/** `parts` are {share, rest}: shares of 1, each in its colour; `rest` is what no model has. */
export function Meter({ label, parts }) {
  const total = parts.reduce((sum, part) => sum + part.share, 0);
  return html`<div class="meter" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="100"
    aria-valuenow=${Math.round(Math.min(1, total) * 100)}>
    ${parts.map((part, index) => html`<span key=${index} title=${part.title}
      class=${part.rest ? "rest" : parts.length === 1 && total > 0.9 ? "high" : `s${(index % 6) + 1}`}
      style=${{ width: `${Math.min(1, part.share) * 100}%` }}></span>`)}
  </div>`;
}
