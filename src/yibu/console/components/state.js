/** A model's or replica's state as a badge. */
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";

const KINDS = {
  ready: "ok", pending: "busy", downloading: "busy", starting: "busy", draining: "warn",
  failed: "bad", stopped: "", unloaded: "",
};

export function stateText(state) {
  const texts = {
    ready: t("ready"), pending: t("pending"), downloading: t("downloading"), starting: t("starting"),
    draining: t("draining"), failed: t("failed"), stopped: t("stopped"), unloaded: t("unloaded"),
  };
  return texts[state] ?? state;
}

export function phaseText(phase) {
  const texts = {
    download: t("downloading"), plan: t("planning"), environment: t("installing the engine"),
    wait: t("waiting for memory"), start: t("starting the engine"), imports: t("importing"),
    load: t("loading weights"), compile: t("compiling"), "warm-up": t("warming up"),
  };
  return texts[phase] ?? phase;
}

export function State({ state, phase = null }) {
  const busy = KINDS[state] === "busy" && phase && phaseText(phase) !== stateText(state);
  return html`<span class=${`badge ${KINDS[state] ?? ""}`}>
    ${busy ? t("{state}: {phase}", { state: stateText(state), phase: phaseText(phase) }) : stateText(state)}
  </span>`;
}
