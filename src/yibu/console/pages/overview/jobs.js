/** What was asked for and goes on, or has failed. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { dateTime } from "../../lib/format.js";
import { cancel, jobText } from "../../lib/jobs.js";
import { Progress } from "./progress.js";

const SHOWN = 8;

export function Jobs({ jobs }) {
  if (!jobs.length) return null;
  return html`<section class="card" aria-labelledby="jobs-title">
    <div class="card-head"><h2 id="jobs-title">${t("Jobs")}</h2></div>
    <div class="table-wrap" tabindex="0" role="group" aria-labelledby="jobs-title"><table class="table">
      <thead><tr><th scope="col">${t("Job")}</th><th scope="col">${t("Models")}</th><th scope="col">${t("Begun")}</th><th scope="col">${t("Result")}</th></tr></thead>
      <tbody>${jobs.slice(0, SHOWN).map((job) => html`<tr key=${job.id}>
        <td>${jobText(job.verb)}</td><td>${job.models.join(", ")}</td><td class="nowrap">${dateTime(job.started)}</td>
        <td>${!job.ended ? html`<div class="stack tight"><span class="row"><span class="badge busy">${t("running")}</span>
            ${job.can_be_cancelled && html`<button type="button" class="button small" onClick=${() => cancel(job)}>${t("Cancel")}</button>`}</span>
            ${job.progress && html`<${Progress} progress=${job.progress} />`}</div>`
          : job.error ? html`<span class="badge bad">${t("failed")}</span> <span class="small">${job.error.message} ${job.error.hint}</span>`
            : html`<span class="badge ok">${t("done")}</span>`}</td></tr>`)}</tbody></table></div>
  </section>`;
}
