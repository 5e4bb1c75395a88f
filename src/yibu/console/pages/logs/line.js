import { html } from "../../lib/html.js";
import { locale } from "../../lib/i18n.js";

const SEARCH_LEAST = 2;

function timeText(time) {
  if (!time) return "";
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false };
  return new Intl.DateTimeFormat(locale(), options).format(new Date(time));
}

const OWN_TIME = /^\d{4}-\d\d-\d\d[ T][\d:]{8}[.,]\d+Z? /;

/** The text with what was searched marked. */
function marked(text, search) {
  if (search.length < SEARCH_LEAST) return text;
  const parts = [];
  const lower = text.toLowerCase();
  const wanted = search.toLowerCase();
  let from = 0;
  for (let at = lower.indexOf(wanted); at >= 0; at = lower.indexOf(wanted, from)) {
    parts.push(text.slice(from, at), html`<mark>${text.slice(at, at + wanted.length)}</mark>`);
    from = at + wanted.length;
  }
  return [...parts, text.slice(from)];
}

export function Line({ line, search }) {
  return html`<div class=${`log-line ${line.level}`}>
    <span class="time" title=${line.time ?? ""}>${timeText(line.time)}</span>
    <span class="name" title=${line.log}>${line.log}</span><span class="text">${marked(line.time ? line.text.replace(OWN_TIME, "") : line.text, search)}</span></div>`;
}
