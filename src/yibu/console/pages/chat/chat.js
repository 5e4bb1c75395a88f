/** Talk to one model, or to several side by side. */
import { useAsked, useTitle } from "../../lib/hooks.js";
import { Fragment, html, useEffect, useState } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { link, route } from "../../lib/router.js";
import { useStore } from "../../lib/store.js";
import { Icon } from "../../components/icon.js";
import { Empty, Notice, Spinner } from "../../components/notice.js";
import { Column } from "./column.js";
import { Composer } from "./composer.js";
import { MOST_MODELS, busySteps } from "./conversation.js";
import { Exporting } from "./exporting.js";
import { History } from "./history.js";
import { Parameters } from "./parameters.js";
import { useChat } from "./use_chat.js";

const ASK_EVERY_SECONDS = 10;
const CHATS = new Set(["chat", "vision"]);

export function Chat() {
  useTitle(t("Chat"));
  const { data, error } = useAsked("v1/models", ASK_EVERY_SECONDS);
  if (error && !data) return html`<div class="page"><${Notice} kind="bad">${error.message}<//></div>`;
  if (!data) return html`<div class="loading"><${Spinner} label=${t("Loading")} /></div>`;
  const models = data.data.filter((model) => model.capabilities.some((one) => CHATS.has(one)));
  if (!models.length) {
    return html`<div class="page"><h1>${t("Chat")}</h1><div class="card"><${Empty} icon="chat">
      <p>${t("No model that chats is up.")}</p>
      <a class="button primary" href=${link("deploy")}>${t("Deploy a model")}</a><//></div></div>`;
  }
  return html`<${Talk} models=${models} />`;
}

function Talk({ models }) {
  const chat = useChat(models);
  const [panel, setPanel] = useState(null);
  const { conversation } = chat;
  const wanted = useStore(route).rest[0];
  useEffect(() => {
    if (!models.some((model) => model.id === wanted)) return;
    chat.beginWith(wanted);
    location.replace(link("chat")); // another model may be chosen now
  }, [wanted]);
  const busy = busySteps(conversation).length > 0;
  const sees = conversation.models.every((name) =>
    models.find((model) => model.id === name)?.capabilities.includes("vision"));
  const toggle = (name) => setPanel(panel === name ? null : name);
  useEffect(() => {
    const onKey = (event) => event.key === "Escape" && busy && chat.stop();
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [busy]);
  return html`<div class="page fill">
    <div class=${`chat ${panel ? "with-panel" : ""}`}>
      <div class="chat-head">
        <h1 class="chat-title truncate">${conversation.title || t("New conversation")}</h1>
        <button type="button" class="button small" onClick=${chat.begin}>
          <${Icon} name="plus" size=${14} />${t("New")}</button>
        <button type="button" class="button small" aria-pressed=${panel === "history" ? "true" : "false"}
          onClick=${() => toggle("history")}><${Icon} name="logs" size=${14} />${t("History")}</button>
        <button type="button" class="button small" aria-pressed=${panel === "parameters" ? "true" : "false"}
          onClick=${() => toggle("parameters")}><${Icon} name="sliders" size=${14} />${t("Parameters")}</button>
        <${Exporting} conversation=${conversation} />
      </div>
      <div class="chat-columns" data-count=${conversation.models.length}>
        ${conversation.models.map((name, index) => html`<${Column} key=${`${conversation.id}-${index}`}
          chat=${chat} models=${models} column=${index} />`)}
      </div>
      <${Composer} chat=${chat} busy=${busy} sees=${sees} extra=${html`<${Fragment}>
        ${conversation.models.length < MOST_MODELS && html`<button type="button" class="button ghost small"
          disabled=${busy} onClick=${chat.addModel}><${Icon} name="columns" size=${14} />${t("Compare")}</button>`}
      <//>`} />
    </div>
    ${panel === "parameters" && html`<${Parameters} chat=${chat} onClose=${() => setPanel(null)} />`}
    ${panel === "history" && html`<${History} chat=${chat} onClose=${() => setPanel(null)} />`}
  </div>`;
}
