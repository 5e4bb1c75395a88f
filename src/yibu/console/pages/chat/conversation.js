/**
 * A conversation as data.
 *
 * {id, title, changed, models: [name, …], parameters, turns: [{text, images, answers: [[step, …], …]}]}:
 * a turn has one list of steps for each model side by side. A step is one answer of the engine,
 * {state, content, reasoning, toolCalls: [{id, name, arguments, result}], usage, firstToken, seconds,
 * error, finish}; what follows the results of its tool calls is the next step.
 */

export const MOST_MODELS = 4;

export const NO_PARAMETERS = {
  system: "", temperature: "", top_p: "", max_tokens: "", seed: "", presence_penalty: "",
  stop: "", tools: "",
};

export function newConversation(models = [], parameters = NO_PARAMETERS) {
  const id = crypto.getRandomValues(new Uint32Array(4)).join("");
  return { id, title: "", changed: Date.now(), models, parameters, turns: [] };
}

export const newStep = () => ({
  state: "waiting", content: "", reasoning: "", toolCalls: [], usage: null, firstToken: null,
  seconds: null, error: null, finish: null,
});

function userMessage(turn) {
  if (!turn.images.length) return { role: "user", content: turn.text };
  const images = turn.images.map((url) => ({ type: "image_url", image_url: { url } }));
  const text = turn.text ? [{ type: "text", text: turn.text }] : [];
  return { role: "user", content: [...text, ...images] };
}

function stepMessages(step) {
  const message = { role: "assistant", content: step.content };
  if (!step.toolCalls.length) return step.content ? [message] : [];
  const calls = step.toolCalls.map((call) => ({
    id: call.id, type: "function", function: { name: call.name, arguments: call.arguments },
  }));
  const results = step.toolCalls.map((call) => ({
    role: "tool", tool_call_id: call.id, content: call.result ?? "",
  }));
  return [{ ...message, content: step.content || null, tool_calls: calls }, ...results];
}

/** What the engine is sent for the last step of a turn: everything before it. */
export function messagesBefore(conversation, column, turnIndex, stepIndex) {
  const { system } = conversation.parameters;
  const messages = system.trim() ? [{ role: "system", content: system }] : [];
  conversation.turns.slice(0, turnIndex + 1).forEach((turn, index) => {
    messages.push(userMessage(turn));
    const steps = turn.answers[column] ?? [];
    const done = index === turnIndex ? steps.slice(0, stepIndex) : steps;
    messages.push(...done.flatMap(stepMessages));
  });
  return messages;
}

const NUMBERS = ["temperature", "top_p", "max_tokens", "seed", "presence_penalty"];

/** The parameters as a request has them; throws SyntaxError where the tools are not JSON. */
export function requestFields(parameters) {
  const fields = {};
  for (const name of NUMBERS) {
    if (String(parameters[name]).trim() !== "") fields[name] = Number(parameters[name]);
  }
  const stop = parameters.stop.split("\n").filter((line) => line !== "");
  if (stop.length) fields.stop = stop;
  if (parameters.tools.trim()) fields.tools = JSON.parse(parameters.tools);
  return fields;
}

export function requestBody(conversation, column, turnIndex, stepIndex) {
  return {
    model: conversation.models[column],
    messages: messagesBefore(conversation, column, turnIndex, stepIndex),
    ...requestFields(conversation.parameters),
    stream: true,
    stream_options: { include_usage: true },
  };
}

/** A copy with one step changed. */
export function withStep(conversation, column, turnIndex, stepIndex, change) {
  const turns = conversation.turns.map((turn, index) => {
    if (index !== turnIndex) return turn;
    const answers = turn.answers.map((steps, place) => (place !== column ? steps
      : steps.map((step, order) => (order === stepIndex ? { ...step, ...change(step) } : step))));
    return { ...turn, answers };
  });
  return { ...conversation, turns };
}

/** A copy in which a column's answers of a turn end before `stepIndex`, and a new step begins. */
export function withNewStep(conversation, column, turnIndex, stepIndex) {
  const turns = conversation.turns.map((turn, index) => {
    if (index !== turnIndex) return turn;
    const answers = conversation.models.map((_, place) => {
      const steps = turn.answers[place] ?? [];
      return place === column ? [...steps.slice(0, stepIndex), newStep()] : steps;
    });
    return { ...turn, answers };
  });
  return { ...conversation, turns };
}

const isBusy = (step) => step.state === "waiting" || step.state === "streaming";

/** A copy in which nothing is being answered: what was is as if somebody had stopped it. */
export function settled(conversation) {
  const turns = conversation.turns.map((turn) => ({
    ...turn, answers: turn.answers.map((steps) =>
      steps.map((step) => (isBusy(step) ? { ...step, state: "stopped" } : step))),
  }));
  return { ...conversation, turns };
}

export const busySteps = (conversation) => conversation.turns.flatMap((turn) => turn.answers.flat())
  .filter(isBusy);
