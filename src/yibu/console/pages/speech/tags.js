/** Language, emotion and events that a model heard. */
import { html } from "../../lib/html.js";
import { locale, t } from "../../lib/i18n.js";

function languageText(code) {
  try {
    return new Intl.DisplayNames([locale()], { type: "language" }).of(code.length <= 3 ? code : code.slice(0, 2)) ?? code;
  } catch {
    return code; // not a code that the browser knows
  }
}

function emotionText(emotion) {
  const texts = {
    neutral: t("neutral"), happy: t("happy"), sad: t("sad"), angry: t("angry"), fearful: t("fearful"),
    disgusted: t("disgusted"), surprised: t("surprised"),
  };
  return texts[emotion] ?? emotion;
}

function eventText(event) {
  const texts = {
    speech: t("speech"), bgm: t("music"), applause: t("applause"), laughter: t("laughter"), cry: t("crying"),
    sneeze: t("sneezing"), breath: t("breathing"), cough: t("coughing"),
  };
  return texts[event] ?? event;
}

export function Tags({ of }) {
  const events = (of.events ?? []).filter((event) => event !== "speech");
  if (!of.language && !of.emotion && !events.length) return null;
  return html`<span class="row wrap tags">
    ${of.language && html`<span class="badge plain">${languageText(of.language)}</span>`}
    ${of.emotion && html`<span class="badge plain busy">${emotionText(of.emotion)}</span>`}
    ${events.map((event) => html`<span class="badge plain warn" key=${event}>${eventText(event)}</span>`)}
  </span>`;
}
