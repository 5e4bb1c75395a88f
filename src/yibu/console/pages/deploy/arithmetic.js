/** A model's memory, row by row, and the command that it will be started with. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Copy } from "../../components/copy.js";

function verdictText(verdict) {
  return { fits: t("fits"), does_not_fit: t("does not fit"), cannot_tell: t("cannot tell") }[verdict] ?? verdict;
}

const KINDS = { fits: "ok", does_not_fit: "bad", cannot_tell: "warn" };

export function Arithmetic({ model }) {
  const command = (model.command ?? []).join(" ");
  return html`<section class="card" aria-label=${t("Plan of {model}", { model: model.model })}>
    <div class="card-head"><h2 class="grow truncate">${model.model}</h2>
      <span class=${`badge ${KINDS[model.verdict]}`}>${verdictText(model.verdict)}</span></div>
    <table class="table arithmetic"><tbody>${model.rows.map((row) => html`<tr key=${row.label}>
      <td>${row.label}</td><td class="number">${row.value}</td><td class="muted small">${row.note}</td></tr>`)}</tbody></table>
    ${(model.notes.length > 0 || command) && html`<div class="card-body stack tight">
      ${model.notes.map((text) => html`<p class="small muted" key=${text}>${text}</p>`)}
      ${command && html`<details><summary class="small">${t("Command")}</summary>
        <div class="row top"><pre class="block grow" tabindex="0" aria-label=${t("Command")}>${command}</pre><${Copy} text=${command} label=${t("Copy the command")} /></div></details>`}
    </div>`}
  </section>`;
}
