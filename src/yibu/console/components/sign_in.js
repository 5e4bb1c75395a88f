/** The form that asks for an admin's key; or why this user gets none. */
import { loadSession, signIn } from "../lib/api.js";
import { html, useEffect, useState } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { TextField } from "./field.js";
import { Logo } from "./navigation.js";
import { Notice } from "./notice.js";
import { LanguageSwitch, ThemeSwitch } from "./switches.js";

export function SignIn({ keys }) {
  const [key, setKey] = useState("");
  const [fault, setFault] = useState(null);
  const [busy, setBusy] = useState(false);
  useEffect(() => {
    document.title = t("{page} · yibu", { page: t("Sign in") });
  });
  const submit = async (event) => {
    event.preventDefault();
    setBusy(true);
    setFault(null);
    try {
      await (keys ? signIn(key.trim()) : loadSession());
    } catch (error) {
      setFault(error.message);
    }
    setBusy(false);
  };
  return html`<main class="signin"><form class="card" onSubmit=${submit}>
    <h1 class="brand"><${Logo} /><span>yibu</span></h1>
    ${keys ? html`<${TextField} name="sign-in" label=${t("Admin API key")} type="password" required
        fault=${fault} value=${key} onValue=${setKey} autocomplete="current-password"
        hint=${t("`yibu key add NAME --admin` makes one on the node's machine.")} />
      <button class="button primary" disabled=${busy || !key.trim()}>${t("Sign in")}</button>`
    : html`<${Notice} kind="warn">${t("The gateway has no keys, so that only the user who runs the node may use the console. Make an admin's key with `yibu key add NAME --admin`, or open this page as that user.")}<//>
      <button class="button" disabled=${busy}>${t("Try again")}</button>`}
    <div class="signin-foot"><${LanguageSwitch} /><${ThemeSwitch} /></div>
  </form></main>`;
}
