import { html } from "../lib/html.js";
import { Icon } from "./icon.js";

/** A message in the page: `kind` is info, ok, warn or bad. */
export function Notice({ kind = "info", children }) {
  const icon = kind === "ok" ? "check" : kind === "info" ? "info" : "alert";
  return html`<div class=${`notice ${kind}`} role=${kind === "bad" ? "alert" : undefined}>
    <${Icon} name=${icon} /><div class="grow">${children}</div>
  </div>`;
}

/** Nothing is there yet. */
export function Empty({ icon, children }) {
  return html`<div class="empty"><${Icon} name=${icon} />${children}</div>`;
}

export function Spinner({ label }) {
  return html`<span class="row" role="status"><span class="spinner"></span>${label}</span>`;
}
