/** Models that yibu knows by name. */
import { useAsked, useDebounced } from "../../lib/hooks.js";
import { withQuery } from "../../lib/api.js";
import { html } from "../../lib/html.js";
import { bytes } from "../../lib/format.js";
import { t } from "../../lib/i18n.js";
import { Notice, Spinner } from "../../components/notice.js";

function fitsText(fits) {
  const texts = {
    "on a GPU": [t("fits on a GPU"), "ok"], "on the GPUs": [t("fits on the GPUs"), "ok"],
    "in memory": [t("fits in memory"), "ok"], no: [t("does not fit"), "bad"],
  };
  return texts[fits] ?? [t("size unknown"), ""];
}

function kindText(kind) {
  const texts = {
    chat: t("chat"), speech: t("speech"), embedding: t("embedding"), rerank: t("reranking"), vad: t("voice activity"),
    punctuation: t("punctuation"), speakers: t("speakers"),
  };
  return texts[kind] ?? kind;
}

export function Catalogue({ query, onChoose }) {
  const word = useDebounced(query.trim());
  const { data, error } = useAsked(withQuery("console/api/catalogue", { q: word }));
  if (error) return html`<${Notice} kind="bad">${error.message}<//>`;
  if (!data) return html`<div class="loading"><${Spinner} label=${t("Loading")} /></div>`;
  if (!data.models.length) {
    return html`<p class="muted">${t("The catalogue knows no such name. Ids of ModelScope and Hugging Face work all the same.")}</p>`;
  }
  return html`<section class="stack" aria-labelledby="catalogue-title">
    <h2 id="catalogue-title">${t("Catalogue")}</h2>
    <ul class="catalogue">${data.models.map((model) => {
      const [text, kind] = fitsText(model.fits);
      return html`<li key=${model.name}><button type="button" class="catalogue-entry" onClick=${() => onChoose(model)}>
        <span class="row"><strong class="grow truncate">${model.name}</strong>${model.up && html`<span class="badge ok">${t("up")}</span>`}</span>
        <span class="small about">${model.about}</span>
        <span class="row wrap small muted"><span>${kindText(model.kind)}</span><span>${bytes(model.size)}</span><span>${model.license}</span>
          <span class=${`badge plain ${kind}`}>${text}</span></span>
      </button></li>`;
    })}</ul>
  </section>`;
}
