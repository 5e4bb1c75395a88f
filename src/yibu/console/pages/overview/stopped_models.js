/** Models of the configuration that are not up. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Icon } from "../../components/icon.js";
import { State } from "../../components/state.js";
import { act } from "./actions.js";

export function StoppedModels({ models }) {
  return html`<section class="card" aria-labelledby="stopped-title">
    <div class="card-head"><h2 id="stopped-title">${t("Not up")}</h2></div>
    <ul class="models">${models.map((model) => html`<li key=${model.name} class="model"><div class="model-line">
      <div class="model-name grow"><div class="row wrap"><strong>${model.name}</strong><${State} state="stopped" /></div>
        <div class="small muted truncate">${[model.engine, model.source].filter(Boolean).join(" · ")}</div></div>
      ${!model.in_file && html`<button type="button" class="button ghost icon" aria-label=${t("Forget {model}", { model: model.name })}
        title=${t("Forget {model}", { model: model.name })} onClick=${() => act("forget", model.name)}><${Icon} name="trash" size=${14} /></button>`}
      <button type="button" class="button" aria-label=${t("Start {model}", { model: model.name })}
        onClick=${() => act("start", model.name)}><${Icon} name="play" size=${14} />${t("Start")}</button>
    </div></li>`)}</ul>
  </section>`;
}
