import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { useStore } from "../lib/store.js";
import { dismiss, toasts } from "../lib/toasts.js";
import { Icon } from "./icon.js";

/** Read aloud as they come. */
export function Toasts() {
  const shown = useStore(toasts);
  return html`<div class="toasts" role="status" aria-live="polite">
    ${shown.map((one) => html`<div key=${one.id} class=${`toast ${one.kind}`}>
      <div class="grow notice-text">${one.text}</div>
      <button type="button" class="button ghost small icon" aria-label=${t("Dismiss")}
        onClick=${() => dismiss(one.id)}><${Icon} name="close" size=${14} /></button>
    </div>`)}
  </div>`;
}
