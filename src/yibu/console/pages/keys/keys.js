/** API keys with their limits, and what they have used. */
import { useAsked, useTitle } from "../../lib/hooks.js";
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { overview } from "../../lib/live.js";
import { useStore } from "../../lib/store.js";
import { Icon } from "../../components/icon.js";
import { Empty, Notice, Spinner } from "../../components/notice.js";
import { KeyForm } from "./key_form.js";
import { KeyRow } from "./key_row.js";
import { newKey } from "./new_key.js";
import { Usage } from "./usage.js";

const ASK_EVERY_SECONDS = 30;
const FEW = 10;

export function Keys() {
  useTitle(t("Keys and usage"));
  const { data, error, reload } = useAsked("console/api/keys", ASK_EVERY_SECONDS);
  const now = useStore(overview);
  const [form, setForm] = useState(null);
  const [search, setSearch] = useState("");
  const keys = data?.keys ?? [];
  const wanted = keys.filter((row) => [row.name, ...row.prefixes].some((text) => text.toLowerCase().includes(search.trim().toLowerCase())));
  const done = (row) => {
    setForm(null);
    if (row?.key) newKey.set(row);
    void reload();
  };
  return html`<div class="page">
    <div class="page-head"><h1 class="grow">${t("Keys and usage")}</h1>
      <button type="button" class="button primary" disabled=${!data && !error} onClick=${() => setForm({ admin: data !== null && !keys.length })}><${Icon} name="plus" size=${14} />${t("New key")}</button></div>
    ${error && html`<${Notice} kind="bad">${error.message}<//>`}
    ${now && !now.gateway.keys && html`<${Notice}>${t("The gateway asks for no key. The first key closes it: this page then asks to sign in, with an admin's key.")}<//>`}
    <section class="card" aria-labelledby="keys-title">
      <div class="card-head"><h2 id="keys-title" class="grow">${t("Keys")}</h2>
        ${keys.length > FEW && html`<div class="search"><${Icon} name="search" size=${15} />
          <label class="visually-hidden" for="keys-search">${t("Search")}</label>
          <input id="keys-search" class="input" type="search" data-search placeholder=${t("Search")} value=${search}
            onInput=${(event) => setSearch(event.target.value)} /></div>`}</div>
      ${!data && !error ? html`<div class="loading"><${Spinner} label=${t("Loading")} /></div>`
      : !keys.length ? html`<${Empty} icon="key"><p>${t("There are no keys.")}</p><//>`
      : !wanted.length ? html`<${Empty} icon="key"><p>${t("No key matches.")}</p><//>`
      : html`<div class="table-wrap" tabindex="0" role="group" aria-labelledby="keys-title"><table class="table">
          <thead><tr><th scope="col">${t("Name")}</th><th scope="col">${t("State")}</th><th scope="col">${t("Models")}</th>
            <th scope="col">${t("Limits")}</th><th scope="col">${t("Expires")}</th><th scope="col"><span class="visually-hidden">${t("Actions")}</span></th></tr></thead>
          <tbody>${wanted.map((row) => html`<${KeyRow} key=${row.name} row=${row} onEdit=${() => setForm(row)} onDone=${done} />`)}</tbody>
        </table></div>`}
    </section>
    <${Usage} keys=${keys} />
    ${form && html`<${KeyForm} row=${form} models=${(now?.models ?? []).map((model) => model.name)} onDone=${done} onClose=${() => setForm(null)} />`}
  </div>`;
}
