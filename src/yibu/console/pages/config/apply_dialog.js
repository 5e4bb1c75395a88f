/** What an apply would do, before it is done. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Dialog } from "../../components/dialog.js";
import { Diff } from "../../components/diff.js";
import { Notice } from "../../components/notice.js";
import { Faults } from "./faults.js";

function Changes({ difference }) {
  const changed = Object.entries(difference.changed ?? {});
  const nothing = !difference.added?.length && !changed.length && !difference.removed?.length;
  return html`<ul class="stack tight">
    ${nothing && html`<li class="muted">${t("What is served does not change.")}</li>`}
    ${(difference.added ?? []).map((name) => html`<li key=${`+${name}`}><span class="badge ok">${t("start")}</span> ${name}</li>`)}
    ${changed.map(([name, fields]) => html`<li key=${`~${name}`}><span class="badge warn">${t("replace")}</span> ${name}
      <ul class="small muted">${Object.entries(fields).map(([field, { from, to }]) => html`<li key=${field}>
        ${t("{field}: {from} → {to}", { field, from: from ?? "–", to: to ?? "–" })}</li>`)}</ul></li>`)}
    ${(difference.removed ?? []).map((name) => html`<li key=${`-${name}`}><span class="badge bad">${t("stop")}</span> ${name}</li>`)}
  </ul>`;
}

export function ApplyDialog({ difference, onApply, onClose }) {
  return html`<${Dialog} title=${t("Apply the configuration")} wide onClose=${onClose} actions=${html`
    <button type="button" class="button" onClick=${onClose}>${t("Cancel")}</button>
    <button type="button" class="button primary" disabled=${!difference.ok} onClick=${onApply}>${t("Apply")}</button>`}>
    ${!difference.ok && html`<${Faults} checked=${{ ok: false, notes: [], faults: difference.faults }} onLine=${onClose} />`}
    ${difference.ok && html`<${Changes} difference=${difference} />`}
    ${difference.settings.length > 0 && html`<${Notice} kind="warn">${[t("These settings hold from the node's next start on:"), ...difference.settings].join("\n")}<//>`}
    ${difference.text && html`<${Diff} text=${difference.text} />`}
  <//>`;
}
