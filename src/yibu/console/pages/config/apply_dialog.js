/** What an apply would do, before it is done. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Dialog } from "../../components/dialog.js";
import { Diff } from "../../components/diff.js";
import { Faults } from "./faults.js";

function Fields({ fields }) {
  return html`<ul class="small muted">${fields.map(([field, { from, to }]) => html`<li key=${field}>
    ${t("{field}: {from} → {to}", { field, from: from ?? "–", to: to ?? "–" })}</li>`)}</ul>`;
}

function Changes({ difference }) {
  const changed = Object.entries(difference.changed ?? {});
  const settings = Object.entries(difference.settings ?? {});
  const nothing = !difference.added?.length && !changed.length && !difference.removed?.length && !settings.length;
  return html`<ul class="stack tight">
    ${nothing && html`<li class="muted">${t("What is served does not change.")}</li>`}
    ${settings.length > 0 && html`<li><span class="badge warn">${t("change")}</span> ${t("settings of the gateway")}<${Fields} fields=${settings} /></li>`}
    ${(difference.added ?? []).map((name) => html`<li key=${`+${name}`}><span class="badge ok">${t("start")}</span> ${name}</li>`)}
    ${changed.map(([name, fields]) => html`<li key=${`~${name}`}><span class="badge warn">${t("replace")}</span> ${name}<${Fields} fields=${Object.entries(fields)} /></li>`)}
    ${(difference.removed ?? []).map((name) => html`<li key=${`-${name}`}><span class="badge bad">${t("stop")}</span> ${name}</li>`)}
  </ul>`;
}

export function ApplyDialog({ difference, onApply, onClose }) {
  return html`<${Dialog} title=${t("Apply the configuration")} wide onClose=${onClose} actions=${html`
    <button type="button" class="button" onClick=${onClose}>${t("Cancel")}</button>
    <button type="button" class="button primary" disabled=${!difference.ok} onClick=${onApply}>${t("Apply")}</button>`}>
    ${!difference.ok && html`<${Faults} checked=${{ ok: false, notes: [], faults: difference.faults }} onLine=${onClose} />`}
    ${difference.ok && html`<${Changes} difference=${difference} />`}
    ${difference.text && html`<${Diff} text=${difference.text} />`}
  <//>`;
}
