/** A key is shown once: the node keeps its hash alone. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Copy } from "../../components/copy.js";
import { Dialog } from "../../components/dialog.js";
import { Notice } from "../../components/notice.js";

export function NewKey({ row, onClose }) {
  return html`<${Dialog} title=${t("Key {name}", { name: row.name })} onClose=${onClose} actions=${html`
    <${Copy} text=${row.key} label=${t("Copy the key")} showLabel />
    <button type="button" class="button primary" onClick=${onClose}>${t("I have it")}</button>`}>
    <code class="new-key">${row.key}</code>
    <${Notice} kind="warn">${t("It is shown this one time. Keep it where secrets are kept.")}<//>
  <//>`;
}
