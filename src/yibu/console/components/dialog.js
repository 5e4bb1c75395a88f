/** A modal dialog: the browser keeps the focus inside and closes it on Escape. */
import { html, useEffect, useRef } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { Icon } from "./icon.js";

export function Dialog({ title, onClose, wide = false, children, actions }) {
  const element = useRef(null);
  useEffect(() => {
    element.current.showModal();
  }, []);
  return html`<dialog ref=${element} class=${wide ? "wide" : ""} aria-labelledby="dialog-title"
    onClose=${onClose} onClick=${(event) => event.target === element.current && onClose()}>
    <div class="dialog-head">
      <h2 id="dialog-title" class="grow">${title}</h2>
      <button type="button" class="button ghost icon" aria-label=${t("Close")} onClick=${onClose}>
        <${Icon} name="close" />
      </button>
    </div>
    <div class="dialog-body">${children}</div>
    ${actions && html`<div class="dialog-foot">${actions}</div>`}
  </dialog>`;
}
