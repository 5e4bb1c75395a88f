/** One step of an answer: reasoning, text, tool calls, and its figures. */
import { html } from "../../lib/html.js";
import { t } from "../../lib/i18n.js";
import { number, seconds } from "../../lib/format.js";
import { Copy, copyText } from "../../components/copy.js";
import { Icon } from "../../components/icon.js";
import { Markdown } from "../../components/markdown.js";
import { Menu } from "../../components/menu.js";
import { Notice, Spinner } from "../../components/notice.js";
import { toast } from "../../lib/toasts.js";
import { curl, javascript, pythonCode } from "./snippets.js";
import { ToolCalls } from "./tool_calls.js";

export function Answer({ step, chat, column, turn, order, last }) {
  const busy = step.state === "waiting" || step.state === "streaming";
  return html`<article class="answer" aria-busy=${busy ? "true" : "false"}>
    ${step.state === "waiting" && html`<${Spinner} label=${t("Waiting for the first token")} />`}
    ${step.reasoning && html`<details class="reasoning">
      <summary>${busy && !step.content ? t("Thinking…") : t("Reasoning")}</summary>
      <div class="reasoning-text">${step.reasoning}</div></details>`}
    ${step.content && html`<${Markdown} text=${step.content} final=${!busy} />`}
    ${step.toolCalls.length > 0 && html`<${ToolCalls} step=${step} chat=${chat} column=${column} turn=${turn}
      order=${order} waiting=${last && !busy} />`}
    ${step.error && html`<${Notice} kind="bad">${step.error}<//>`}
    ${!busy && html`<${Figures} step=${step} chat=${chat} column=${column} turn=${turn} order=${order} />`}
  </article>`;
}

/** Generated tokens a second after the first; null where that cannot be told. */
export function speed(step) {
  const tokens = step.usage?.completion_tokens;
  const time = step.seconds - step.firstToken;
  return tokens > 1 && step.firstToken !== null && time > 0 ? (tokens - 1) / time : null;
}

function Figures({ step, chat, column, turn, order }) {
  const rate = speed(step);
  const body = () => chat.body(column, turn, order);
  const copy = async (code) => {
    if (await copyText(code)) toast(t("Copied"), "ok");
  };
  return html`<div class="figures small muted">
    ${step.usage && html`<span title=${t("Tokens of the prompt, and of the answer")}>
      ${t("{prompt} → {completion} tokens", { prompt: step.usage.prompt_tokens, completion: step.usage.completion_tokens })}</span>`}
    ${step.firstToken !== null && html`<span title=${t("Time to the first token")}>${t("TTFT {time}", { time: seconds(step.firstToken) })}</span>`}
    ${rate !== null && html`<span>${t("{rate} tokens/s", { rate: number(rate, 1) })}</span>`}
    ${step.state === "stopped" && html`<span class="warn">${t("stopped")}</span>`}
    ${step.finish === "length" && html`<span class="warn">${t("cut at the token limit")}</span>`}
    <span class="row figures-actions">
      <${Copy} text=${step.content} label=${t("Copy the answer")} />
      ${order === 0 && html`<button type="button" class="button ghost small icon" aria-label=${t("Answer again")}
        title=${t("Answer again")} onClick=${() => chat.retry(column, turn)}><${Icon} name="restart" size=${14} /></button>`}
      <${Menu} label=${t("Copy the request as code")} icon="code" up left items=${[
        { label: t("Copy as curl"), run: () => copy(curl(body())) },
        { label: t("Copy as Python"), run: () => copy(pythonCode(body())) },
        { label: t("Copy as JavaScript"), run: () => copy(javascript(body())) },
      ]} />
    </span>
  </div>`;
}
