/** What was asked for and goes on, or has failed. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { dateTime } from "../../lib/format.js";
import { jobText } from "../../lib/jobs.js";

const SHOWN = 8;

export function Jobs({ jobs }) {
  if (!jobs.length) return null;
  return html`<section class="card" aria-labelledby="jobs-title">
    <div class="card-head"><h2 id="jobs-title">${t("Jobs")}</h2></div>
    <div class="table-wrap" tabindex="0" role="group" aria-labelledby="jobs-title"><table class="table">
      <thead><tr><th scope="col">${t("Job")}</th><th scope="col">${t("Models")}</th><th scope="col">${t("Begun")}</th><th scope="col">${t("Result")}</th></tr></thead>
      <tbody>${jobs.slice(0, SHOWN).map((job) => html`<tr key=${job.id}>
        <td>${jobText(job.verb)}</td><td>${job.models.join(", ")}</td><td class="nowrap">${dateTime(job.started)}</td>
        <td>${!job.ended ? html`<span class="badge busy">${t("running")}</span>`
          : job.error ? html`<span class="badge bad">${t("failed")}</span> <span class="small">${job.error.message} ${job.error.hint}</span>`
            : html`<span class="badge ok">${t("done")}</span>`}</td></tr>`)}</tbody></table></div>
  </section>`;
}
