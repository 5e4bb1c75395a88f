/** Language and theme. */
import { html } from "../lib/html.js";
import { LANGUAGES, chosenLanguage, language, t } from "../lib/i18n.js";
import { useStore } from "../lib/store.js";
import { chosenTheme } from "../lib/theme.js";
import { Icon } from "./icon.js";

export function LanguageSwitch() {
  useStore(chosenLanguage);
  const next = language() === "en" ? "zh-CN" : "en";
  return html`<button type="button" class="button ghost small" lang=${next}
    onClick=${() => chosenLanguage.set(next)}>${LANGUAGES[next]}</button>`;
}

export function ThemeSwitch() {
  const theme = useStore(chosenTheme);
  const texts = { system: t("Theme: as the system"), light: t("Theme: light"), dark: t("Theme: dark") };
  const icons = { system: "system", light: "sun", dark: "moon" };
  const next = { system: "light", light: "dark", dark: "system" }[theme];
  return html`<button type="button" class="button ghost small icon" aria-label=${texts[theme]}
    title=${texts[theme]} onClick=${() => chosenTheme.set(next)}>
    <${Icon} name=${icons[theme]} /></button>`;
}
