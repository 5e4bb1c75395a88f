import { session, signOut } from "../lib/api.js";
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { link } from "../lib/router.js";
import { useStore } from "../lib/store.js";
import { attempt } from "../lib/toasts.js";
import { Icon } from "./icon.js";
import { LanguageSwitch, ThemeSwitch } from "./switches.js";

export const PAGES = ["overview", "deploy", "chat", "speech", "logs", "metrics", "keys", "config"];

export function pageTitle(page) {
  const titles = {
    overview: t("Overview"), deploy: t("Deploy"), chat: t("Chat"), speech: t("Speech"),
    logs: t("Logs"), metrics: t("Metrics"), keys: t("Keys and usage"), config: t("Configuration"),
  };
  return titles[page] ?? titles.overview;
}

export function Navigation({ page }) {
  const { version, name, csrf } = useStore(session);
  const current = PAGES.includes(page) ? page : "overview";
  return html`<nav id="side" class="side" aria-label=${t("Pages")}>
    <a class="brand" href=${link("overview")}><${Logo} /><span>yibu</span>
      <small>${version}</small></a>
    <ul class="nav">
      ${PAGES.map((one) => html`<li key=${one}><a href=${link(one)}
        aria-current=${one === current ? "page" : undefined}><${Icon} name=${one} />${pageTitle(one)}</a></li>`)}
    </ul>
    <div class="side-foot">
      ${csrf && html`<div class="row"><span class="small muted truncate">${name}</span>
        <button type="button" class="button ghost small" onClick=${() => attempt(signOut)}>
          <${Icon} name="signout" size=${14} />${t("Sign out")}</button></div>`}
      <div class="row"><${LanguageSwitch} /><${ThemeSwitch} /></div>
    </div>
  </nav>`;
}

export function Logo() {
  return html`<img src=${new URL("../icon.svg", import.meta.url).href} alt="" />`;
}
