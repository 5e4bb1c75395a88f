/** A key is shown once: the node keeps its hash alone. The first one closes the gateway, so that the dialog has to
outlive the page that made it. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { createStore, useStore } from "../../lib/store.js";
import { Copy } from "../../components/copy.js";
import { Dialog } from "../../components/dialog.js";
import { Notice } from "../../components/notice.js";

/** The key that was just made, as the node answered it; null once it was read. */
export const newKey = createStore(null);

export function NewKey() {
  const row = useStore(newKey);
  if (!row) return null;
  const onClose = () => newKey.set(null);
  return html`<${Dialog} title=${t("Key {name}", { name: row.name })} onClose=${onClose} actions=${html`
    <${Copy} text=${row.key} label=${t("Copy the key")} showLabel />
    <button type="button" class="button primary" onClick=${onClose}>${t("I have it")}</button>`}>
    <code class="new-key">${row.key}</code>
    <${Notice} kind="warn">${t("It is shown this one time. Keep it where secrets are kept.")}<//>
  <//>`;
}
