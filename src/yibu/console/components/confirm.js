/** `await confirm({…})`: whether the person agrees. */
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";
import { createStore, useStore } from "../lib/store.js";
import { Dialog } from "./dialog.js";

const question = createStore(null);

export function confirm({ title, text, action, danger = false }) {
  return new Promise((resolve) => question.set({ title, text, action, danger, resolve }));
}

export function Confirmation() {
  const asked = useStore(question);
  if (!asked) return null;
  const answer = (agreed) => {
    question.set(null);
    asked.resolve(agreed);
  };
  return html`<${Dialog} title=${asked.title} onClose=${() => answer(false)} actions=${html`
    <button type="button" class="button" onClick=${() => answer(false)}>${t("Cancel")}</button>
    <button type="button" class=${`button primary ${asked.danger ? "danger" : ""}`}
      onClick=${() => answer(true)}>${asked.action}</button>`}>
    <p>${asked.text}</p>
  <//>`;
}
