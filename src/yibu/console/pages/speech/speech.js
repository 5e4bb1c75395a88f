/** Turn recordings and the microphone into text. */
import { useAsked, useTitle } from "../../lib/hooks.js";
import { html, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { link } from "../../lib/router.js";
import { Segmented } from "../../components/field.js";
import { Empty, Notice, Spinner } from "../../components/notice.js";
import { Files } from "./files.js";
import { Live } from "./live.js";

const ASK_EVERY_SECONDS = 10;

export function Speech() {
  useTitle(t("Speech"));
  const { data, error } = useAsked("v1/models", ASK_EVERY_SECONDS);
  const [source, setSource] = useState("file");
  if (error && !data) return html`<div class="page"><${Notice} kind="bad">${error.message}<//></div>`;
  if (!data) return html`<div class="loading"><${Spinner} label=${t("Loading")} /></div>`;
  const models = data.data.filter((model) => model.capabilities.includes("transcriptions"));
  return html`<div class="page">
    <div class="page-head"><h1>${t("Speech")}</h1>
      <${Segmented} label=${t("Source")} value=${source} onValue=${setSource}
        options=${[["file", t("File")], ["live", t("Microphone")]]} /></div>
    ${!models.length ? html`<div class="card"><${Empty} icon="speech">
        <p>${t("No model that transcribes is up.")}</p>
        <a class="button primary" href=${link("deploy")}>${t("Deploy a model")}</a><//></div>`
    : source === "file" ? html`<${Files} models=${models} />` : html`<${Live} models=${models} />`}
  </div>`;
}
