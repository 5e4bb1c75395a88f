/** A model's or replica's state as a badge. */
import { html } from "../lib/html.js";
import { t } from "../lib/i18n.js";

const KINDS = {
  ready: "ok", pending: "busy", downloading: "busy", starting: "busy", draining: "warn",
  failed: "bad", stopped: "", sleeping: "", unloaded: "",
};

export function stateText(state) {
  const texts = {
    ready: t("ready"), pending: t("pending"), downloading: t("downloading"), starting: t("starting"),
    draining: t("draining"), failed: t("failed"), stopped: t("stopped"), sleeping: t("asleep"),
    unloaded: t("unloaded"),
  };
  return texts[state] ?? state;
}

/** What a phase that runs does, and what one that is over was. */
function phaseTexts(phase) {
  const texts = {
    download: [t("downloading"), t("download")], plan: [t("planning"), t("plan")],
    environment: [t("installing the engine"), t("engine's environment")],
    wait: [t("waiting for memory"), t("wait for memory")], wake: [t("waking"), t("wake-up")],
    start: [t("starting the engine"), t("start of the engine")],
    imports: [t("importing"), t("imports")], load: [t("loading weights"), t("load of the weights")],
    compile: [t("compiling"), t("compilation")], "warm-up": [t("warming up"), t("warm-up")],
  };
  return texts[phase] ?? [phase, phase];
}

export const phaseText = (phase) => phaseTexts(phase)[0];
export const pastPhaseText = (phase) => phaseTexts(phase)[1];

export function State({ state, phase = null }) {
  const busy = KINDS[state] === "busy" && phase && phaseText(phase) !== stateText(state);
  return html`<span class=${`badge ${KINDS[state] ?? ""}`}>
    ${busy ? t("{state}: {phase}", { state: stateText(state), phase: phaseText(phase) }) : stateText(state)}
  </span>`;
}
