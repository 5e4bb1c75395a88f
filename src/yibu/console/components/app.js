/** The frame: navigation beside the current page, or the sign-in form. */
import { session } from "../lib/api.js";
import { html, useEffect, useState } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { connection } from "../lib/live.js";
import { route } from "../lib/router.js";
import { useStore } from "../lib/store.js";
import { NewKey } from "../pages/keys/new_key.js";
import { Confirmation } from "./confirm.js";
import { Icon } from "./icon.js";
import { Navigation, pageTitle } from "./navigation.js";
import { PageView } from "./page_view.js";
import { Shortcuts } from "./shortcuts.js";
import { SignIn } from "./sign_in.js";
import { Toasts } from "./toasts.js";

export function App() {
  const signed = useStore(session);
  if (!signed.signed_in) return html`<${SignIn} keys=${signed.keys} /><${Toasts} /><${NewKey} />`;
  return html`<${Frame} /><${Toasts} /><${NewKey} /><${Confirmation} /><${Shortcuts} />`;
}

function Frame() {
  const { page } = useStore(route);
  const trouble = useStore(connection);
  const [open, setOpen] = useState(false);
  useEffect(() => setOpen(false), [page]);
  const onKey = (event) => event.key === "Escape" && setOpen(false);
  return html`<div class=${`shell ${open ? "open" : ""}`} onKeyDown=${onKey}>
    <a class="skip" href="#main" onClick=${toMain}>${t("Skip to the content")}</a>
    <header class="topbar">
      <button type="button" class="button ghost icon" aria-label=${t("Menu")} aria-expanded=${open}
        aria-controls="side" onClick=${() => setOpen(!open)}><${Icon} name="menu" size=${18} /></button>
      <span>${pageTitle(page)}</span>
    </header>
    <button type="button" class="scrim" tabindex="-1" aria-label=${t("Close the menu")}
      onClick=${() => setOpen(false)}></button>
    <${Navigation} page=${page} />
    <div class="main">
      ${trouble && html`<div class="banner" role="status"><${Icon} name="alert" />
        ${t("No connection to the node. Trying again.")}</div>`}
      <main id="main" tabindex="-1" class="grow"><${PageView} page=${page} /></main>
    </div>
  </div>`;
}

/** The hash is the page's address, so that the focus is moved by hand. */
function toMain(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}
