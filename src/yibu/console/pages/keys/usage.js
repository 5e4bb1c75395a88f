/** Requests, tokens and audio by key, model, day or hour. */
import { withQuery } from "../../lib/api.js";
import { useAsked } from "../../lib/hooks.js";
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { compact, duration, number } from "../../lib/format.js";
import { Segmented } from "../../components/field.js";
import { Empty, Notice } from "../../components/notice.js";

const ASK_EVERY_SECONDS = 15;

export function Usage({ keys }) {
  const [by, setBy] = useState("key");
  const [since, setSince] = useState("7d");
  const [key, setKey] = useState("");
  const { data, error } = useAsked(withQuery("console/api/usage", { by, since, key }), ASK_EVERY_SECONDS);
  const rows = data?.data ?? [];
  return html`<section class="card" aria-labelledby="usage-title">
    <div class="card-head"><h2 id="usage-title" class="grow">${t("Usage")}</h2>
      ${keys.length > 1 && html`<label class="visually-hidden" for="usage-key">${t("Key")}</label>
        <select id="usage-key" class="input fit" value=${key} onChange=${(event) => setKey(event.target.value)}>
          <option value="" selected=${key === ""}>${t("all keys")}</option>
          ${keys.map((row) => html`<option key=${row.name} value=${row.name} selected=${key === row.name}>${row.name}</option>`)}</select>`}
      <${Segmented} label=${t("Usage by")} value=${by} onValue=${setBy}
        options=${[["key", t("Key")], ["model", t("Model")], ["day", t("Day")], ["hour", t("Hour")]]} />
      <${Segmented} label=${t("Since")} value=${since} onValue=${setSince}
        options=${[["1d", t("1 day")], ["7d", t("7 days")], ["30d", t("30 days")]]} />
    </div>
    ${error && html`<div class="card-body"><${Notice} kind="bad">${error.message}<//></div>`}
    ${data && !rows.length && html`<${Empty} icon="metrics"><p>${t("No requests in this time.")}</p><//>`}
    ${rows.length > 0 && html`<div class="table-wrap" tabindex="0" role="group" aria-labelledby="usage-title"><table class="table">
      <thead><tr><th scope="col">${headOf(by)}</th><th scope="col" class="number">${t("Requests")}</th><th scope="col" class="number">${t("Errors")}</th>
        <th scope="col" class="number">${t("Tokens in")}</th><th scope="col" class="number">${t("of them cached")}</th>
        <th scope="col" class="number">${t("Tokens out")}</th><th scope="col" class="number">${t("Audio")}</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.group}><td>${groupText(by, row.group)}</td>
        <td class="number">${number(row.requests)}</td><td class=${`number ${row.errors ? "bad" : ""}`}>${number(row.errors)}</td>
        <td class="number" title=${number(row.prompt_tokens)}>${compact(row.prompt_tokens)}</td><td class="number">${compact(row.cached_tokens)}</td>
        <td class="number" title=${number(row.completion_tokens)}>${compact(row.completion_tokens)}</td>
        <td class="number">${row.audio_seconds ? duration(row.audio_seconds) : "–"}</td></tr>`)}</tbody></table></div>`}
  </section>`;
}

/** The gateway counts requests without a key for "-". */
function groupText(by, group) {
  return by === "key" && group === "-" ? t("without a key") : group;
}

function headOf(by) {
  return { key: t("Key"), model: t("Model"), day: t("Day"), hour: t("Hour") }[by];
}
