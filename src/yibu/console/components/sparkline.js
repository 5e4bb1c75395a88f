/** The last minutes as a line: a picture beside the number that says the same. */
import { html } from "../lib/html.js";

const WIDTH = 96;
const HEIGHT = 24;

export function Sparkline({ values, label }) {
  const known = values.filter((value) => value !== null);
  if (known.length < 2) return html`<svg class="sparkline" width=${WIDTH} height=${HEIGHT} aria-hidden="true"></svg>`;
  const top = Math.max(...known) || 1;
  const step = WIDTH / Math.max(1, values.length - 1);
  let path = "";
  let pen = "M";
  values.forEach((value, index) => {
    if (value === null) {
      pen = "M";
      return;
    }
    path += `${pen}${(index * step).toFixed(1)} ${(HEIGHT - 2 - (value / top) * (HEIGHT - 4)).toFixed(1)}`;
    pen = "L";
  });
  return html`<svg class="sparkline" width=${WIDTH} height=${HEIGHT} viewBox=${`0 0 ${WIDTH} ${HEIGHT}`}
    role="img" aria-label=${label}><path d=${path} fill="none" stroke="currentColor" stroke-width="1.5"
    stroke-linejoin="round" /></svg>`;
}
