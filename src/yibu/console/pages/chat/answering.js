/** Ask an engine for one step of a conversation, and hand on what comes. */
import { ApiError, send } from "../../lib/api.js";
import { eventsOf } from "../../lib/events.js";
import { t } from "../../lib/i18n.js";

const OPENS = "<think>";
const CLOSES = "</think>";

/** Engines without a reasoning parser leave the tags in the text: split it. */
export function split(text) {
  if (!text.trimStart().startsWith(OPENS)) return { reasoning: "", content: text };
  const rest = text.trimStart().slice(OPENS.length);
  const end = rest.indexOf(CLOSES);
  if (end < 0) return { reasoning: rest.trimStart(), content: "" };
  return { reasoning: rest.slice(0, end).trim(), content: rest.slice(end + CLOSES.length).trimStart() };
}

/** Add a delta's pieces of tool calls to those that there are. */
export function joined(calls, pieces) {
  const all = calls.map((call) => ({ ...call }));
  for (const piece of pieces) {
    const index = piece.index ?? all.length;
    all[index] ??= { id: "", name: "", arguments: "", result: null };
    if (piece.id) all[index].id = piece.id;
    if (piece.function?.name) all[index].name += piece.function.name;
    all[index].arguments += piece.function?.arguments ?? "";
  }
  return all;
}

/** `onChange(part)` gets the step's fields as they grow. Resolves when the answer has ended, however. */
export async function answerStep(body, signal, onChange) {
  const began = performance.now();
  const elapsed = () => (performance.now() - began) / 1000;
  const state = { raw: "", reasoning: "", toolCalls: [], firstToken: null, finish: null, whole: false };
  try {
    const answer = await send("v1/chat/completions", { method: "POST", json: body, signal });
    for await (const { data } of eventsOf(answer)) {
      if (data === "[DONE]") state.whole = true;
      else take(JSON.parse(data), state, elapsed, onChange);
    }
    if (!state.whole) throw new Error(t("The answer broke off."));
    onChange({ state: "done", seconds: elapsed(), firstToken: state.firstToken, finish: state.finish });
  } catch (error) {
    if (signal.aborted) onChange({ state: "stopped", seconds: elapsed(), firstToken: state.firstToken });
    else onChange({ state: "failed", seconds: elapsed(), error: error.message || t("The answer broke off.") });
  }
}

function take(chunk, state, elapsed, onChange) {
  if (chunk.error) throw new ApiError(502, chunk.error);
  if (chunk.usage) onChange({ usage: chunk.usage });
  const choice = chunk.choices?.[0];
  if (!choice) return;
  if (choice.finish_reason) state.finish = choice.finish_reason;
  const delta = choice.delta ?? {};
  const thought = delta.reasoning_content ?? delta.reasoning ?? "";
  if (!delta.content && !thought && !delta.tool_calls) return;
  state.firstToken ??= elapsed();
  state.raw += delta.content ?? "";
  state.reasoning += thought;
  state.toolCalls = joined(state.toolCalls, delta.tool_calls ?? []);
  const shown = state.reasoning ? { reasoning: state.reasoning, content: state.raw } : split(state.raw);
  onChange({ state: "streaming", ...shown, toolCalls: state.toolCalls, firstToken: state.firstToken });
}
