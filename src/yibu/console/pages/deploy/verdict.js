import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { Notice } from "../../components/notice.js";
import { fits } from "./arithmetic.js";

/** Whether it fits, and where it does not, why and what would. */
export function Verdict({ plan }) {
  if (plan.fits) return html`<${Notice} kind="ok"><strong>${t("It fits.")}</strong><//>`;
  const open = plan.models.filter((model) => !fits(model));
  return html`<div class="stack tight">${open.map((model) => html`<${Notice} key=${model.model}
    kind=${model.verdict === "cannot_tell" ? "warn" : "bad"}>
    <strong>${model.verdict === "cannot_tell" ? t("{model}: cannot tell whether it fits.", { model: model.model })
      : t("{model} does not fit.", { model: model.model })}</strong>
    ${model.reasons.map((text) => html`<span key=${text}>${text}</span>`)}
    ${model.suggestions.length > 0 && html`<span><strong>${t("What would fit:")}</strong></span>
      ${model.suggestions.map((text) => html`<span key=${text}>${text}</span>`)}`}
  <//>`)}</div>`;
}
