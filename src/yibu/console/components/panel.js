/** A column beside the page; over it where the window is narrow. */
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { Icon } from "./icon.js";

export function Panel({ title, onClose, children }) {
  const onKey = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    onClose();
  };
  return html`<aside class="panel" aria-label=${title} onKeyDown=${onKey}>
    <div class="panel-head"><h2 class="grow">${title}</h2>
      <button type="button" class="button ghost small icon" aria-label=${t("Close")} onClick=${onClose}>
        <${Icon} name="close" size=${14} /></button></div>
    <div class="panel-body">${children}</div>
  </aside>`;
}
