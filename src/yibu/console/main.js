/** The page's start: language and session first, then everything else. */
import { App } from "./components/app.js";
import { loadSession } from "./lib/api.js";
import { html, render } from "./lib/html.js";
import { chosenLanguage, loadLanguage } from "./lib/i18n.js";
import { restart, startLive } from "./lib/live.js";
import "./lib/theme.js";

const root = document.getElementById("app");
const draw = () => render(html`<${App} />`, root);

async function languageChanged() {
  await loadLanguage();
  draw();
  restart();
}

await Promise.all([loadLanguage(), loadSession()]);
root.replaceChildren(); // what index.html shows until now
draw();
startLive();
chosenLanguage.subscribe(languageChanged);
