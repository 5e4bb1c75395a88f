/** The current page's component, loaded when it is first opened. */
import { html, useEffect, useState } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { Overview } from "../pages/overview/overview.js";
import { connection } from "../lib/live.js";
import { Notice, Spinner } from "./notice.js";

const LOADERS = {
  deploy: async () => (await import("../pages/deploy/deploy.js")).Deploy,
  chat: async () => (await import("../pages/chat/chat.js")).Chat,
  speech: async () => (await import("../pages/speech/speech.js")).Speech,
  logs: async () => (await import("../pages/logs/logs.js")).Logs,
  metrics: async () => (await import("../pages/metrics/metrics.js")).Metrics,
  keys: async () => (await import("../pages/keys/keys.js")).Keys,
  config: async () => (await import("../pages/config/config.js")).Configuration,
};
const loaded = { overview: Overview };

export function PageView({ page }) {
  const name = Object.hasOwn(LOADERS, page) ? page : "overview";
  const [, setCount] = useState(0);
  const [error, setError] = useState(null);
  useEffect(() => {
    setError(null);
    if (loaded[name]) return;
    LOADERS[name]().then((component) => {
      loaded[name] = component;
      setCount((count) => count + 1);
    }, setError);
  }, [name]);
  // A module that could not be had stays so for the browser until the page is loaded anew.
  useEffect(() => (error ? connection.subscribe((trouble) => !trouble && location.reload()) : undefined), [error]);
  const Page = loaded[name];
  if (Page) return html`<${Page} key=${name} />`;
  if (error) {
    return html`<div class="page"><${Notice} kind="bad">
      ${t("This page cannot be loaded: the node does not answer.")}<//>
      <div><button type="button" class="button" onClick=${() => location.reload()}>${t("Try again")}</button></div></div>`;
  }
  return html`<div class="loading"><${Spinner} label=${t("Loading")} /></div>`;
}
