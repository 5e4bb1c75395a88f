/** What was served before, each set of it to be had back. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { dateTime } from "../../lib/format.js";

export function History({ history, onRollback }) {
  const none = html`<span class="muted">${t("none")}</span>`;
  return html`<section class="card" aria-labelledby="history-title">
    <div class="card-head"><h2 id="history-title">${t("Served before")}</h2></div>
    <div class="table-wrap" tabindex="0" role="group" aria-labelledby="history-title"><table class="table">
      <thead><tr><th scope="col">${t("Until")}</th><th scope="col">${t("Models")}</th><th scope="col">${t("Settings")}</th>
        <th scope="col"><span class="visually-hidden">${t("Actions")}</span></th></tr></thead>
      <tbody>${history.map((one, index) => html`<tr key=${index}>
        <td class="nowrap">${dateTime(one.until)}</td><td>${one.models.join(", ") || none}</td>
        <td class="mono">${Object.entries(one.settings ?? {}).map(([name, value]) => `${name}: ${value}`).join(", ") || none}</td>
        <td class="number"><button type="button" class="button small" aria-label=${t("Serve again what was served until {time}", { time: dateTime(one.until) })}
          onClick=${() => onRollback(one)}>${t("Serve again")}</button></td></tr>`)}</tbody></table></div>
  </section>`;
}
