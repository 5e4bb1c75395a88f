/** Models and language of a transcription. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { route } from "../../lib/router.js";
import { SelectField, TextField } from "../../components/field.js";

/** With the model that the page's address names, where it is up. */
export function startSettings(models) {
  const { id } = models.find((model) => model.id === route.get().rest[0]) ?? models[0];
  return { models: [id], language: "", prompt: "" };
}

/** The languages that most models know; others can be typed as codes by the API. */
function languages() {
  return [
    ["", t("automatic")], ["zh", t("Chinese")], ["en", t("English")], ["yue", t("Cantonese")],
    ["ja", t("Japanese")], ["ko", t("Korean")], ["de", t("German")], ["fr", t("French")], ["es", t("Spanish")],
    ["ru", t("Russian")],
  ];
}

export function Settings({ models, settings, onSettings, single = false }) {
  const set = (part) => onSettings({ ...settings, ...part });
  const options = models.map((model) => [model.id, model.id]);
  const [first, second = ""] = settings.models;
  return html`<div class="fields">
    <${SelectField} name="speech-model" label=${t("Model")} value=${first} options=${options}
      onValue=${(name) => set({ models: second ? [name, second] : [name] })} />
    ${!single && models.length > 1 && html`<${SelectField} name="speech-second" label=${t("Beside it")} value=${second}
      options=${[["", t("none")], ...options.filter(([name]) => name !== first)]}
      onValue=${(name) => set({ models: name ? [first, name] : [first] })} />`}
    <${SelectField} name="speech-language" label=${t("Language")} value=${settings.language} options=${languages()}
      onValue=${(language) => set({ language })} />
    <${TextField} name="speech-prompt" label=${t("Words to expect")} value=${settings.prompt}
      placeholder=${t("names, terms")} onValue=${(prompt) => set({ prompt })} />
  </div>`;
}
