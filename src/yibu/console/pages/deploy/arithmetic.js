/** A model's memory, row by row, and the command that it will be started with. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Copy } from "../../components/copy.js";

function verdictText(verdict) {
  return { fits: t("fits"), fits_reduced: t("fits, with a shorter context"), does_not_fit: t("does not fit"), cannot_tell: t("cannot tell") }[verdict] ?? verdict;
}

/** A model that fits in some way. */
export const fits = (model) => model.verdict.startsWith("fits");

const KINDS = { fits: "ok", fits_reduced: "warn", does_not_fit: "bad", cannot_tell: "warn" };

/** Values with their notes, line by line. */
export function Rows({ rows }) {
  return html`<dl class="arithmetic">${rows.map((row, index) => html`<div key=${index}>
    <dt>${row.label}</dt><dd>${row.value}${row.note && html`<span class="muted small">${row.note}</span>`}</dd></div>`)}</dl>`;
}

export function Arithmetic({ model }) {
  const command = (model.command ?? []).join(" ");
  const notes = [...(fits(model) ? model.reasons : []), ...model.notes]; // else the verdict has the reasons
  return html`<section class="card" aria-label=${t("Plan of {model}", { model: model.model })}>
    <div class="card-head"><h2 class="grow truncate">${model.model}</h2>
      <span class=${`badge ${KINDS[model.verdict]}`}>${verdictText(model.verdict)}</span></div>
    <${Rows} rows=${model.rows} />
    ${(notes.length > 0 || command) && html`<div class="card-body stack tight">
      ${notes.length > 0 && html`<ul class="stack tight small muted bullets">${notes.map((text) => html`<li key=${text}>${text}</li>`)}</ul>`}
      ${command && html`<details><summary class="small">${t("Command")}</summary>
        <div class="row top"><pre class="block grow" tabindex="0" aria-label=${t("Command")}>${command}</pre><${Copy} text=${command} label=${t("Copy the command")} /></div></details>`}
    </div>`}
  </section>`;
}
