/** The conversation on the page, and what can be done with it. */
import { useEffect, useState } from "../../lib/html.js";
import { createStore, persisted, useStore } from "../../lib/store.js";
import { allConversations, keepConversation, removeConversation } from "../../lib/database.js";
import { t } from "../../lib/i18n.js";
import { attempt } from "../../lib/toasts.js";
import { answerStep } from "./answering.js";
import {
  NO_PARAMETERS, busySteps, newConversation, requestBody, settled, withNewStep, withStep,
} from "./conversation.js";

const lastModels = persisted("yibu.chat.models", []);
const lastParameters = persisted("yibu.chat.parameters", NO_PARAMETERS);
const TITLE_LENGTH = 60;
const KEEP_MILLISECONDS = 2000;

const titleOf = (text) => (text.length > TITLE_LENGTH ? `${text.slice(0, TITLE_LENGTH)}…` : text);

function fresh(models, wanted = lastModels.get()) {
  const names = new Set(models.map((model) => model.id));
  const kept = wanted.filter((name) => names.has(name));
  return newConversation(kept.length ? kept : [models[0].id], { ...NO_PARAMETERS, ...lastParameters.get() });
}

/** The conversation on the page; it stays, and goes on being answered, while other pages are looked at. */
const shown = createStore(null);
const running = new Set();
const change = (update) => shown.set((now) => update(now));
const stop = () => running.forEach((aborter) => aborter.abort());

export function useChat(models) {
  if (!shown.get()) shown.set(fresh(models));
  const conversation = useStore(shown);
  const [history, setHistory] = useState([]);
  const reload = () => allConversations().then((all) => setHistory(all.map(settled)), (error) =>
    console.info("conversations cannot be kept in this browser", error));
  const keep = () => keepConversation(shown.get()).then(reload, (error) =>
    console.info("the conversation is not kept", error));
  useEffect(() => void reload(), []);

  async function run(column, turn, step) {
    const { id } = shown.get();
    let body;
    let kept = Date.now();
    try {
      change((now) => withNewStep(now, column, turn, step));
      body = requestBody(shown.get(), column, turn, step);
    } catch (error) {
      // The only part that is parsed is what the person wrote as tools.
      change((now) => withStep(now, column, turn, step, () => ({ state: "failed", error: t("The tools are not JSON: {message}", { message: error.message }) })));
      return;
    }
    const aborter = new AbortController();
    running.add(aborter);
    void keep();
    await answerStep(body, aborter.signal, (part) => {
      if (shown.get().id !== id) return;
      change((now) => withStep(now, column, turn, step, () => part));
      if (Date.now() - kept < KEEP_MILLISECONDS) return;
      kept = Date.now();
      void keep();
    });
    running.delete(aborter);
    if (shown.get().id === id) {
      change((now) => ({ ...now, changed: Date.now() }));
      await keep();
    }
  }

  const answerAll = (turn) => Promise.all(shown.get().models.map((_, column) => run(column, turn, 0)));

  /** Show another one; what is being answered in this one is stopped, and kept as far as it came. */
  function open(next) {
    if (next.id === shown.get().id) return;
    if (busySteps(shown.get()).length) {
      change(settled);
      void keep();
    }
    stop();
    shown.set(next);
  }
  const setModels = (names) => {
    lastModels.set(names);
    change((now) => ({ ...now, models: names }));
  };

  return {
    conversation, history, open, stop,
    begin: () => open(fresh(models)),
    /** Talk to this model: here while nothing was asked yet, else in a new conversation. */
    beginWith: (name) => {
      const { models: names, turns } = shown.get();
      if (names.length === 1 && names[0] === name) return;
      if (turns.length) open(fresh(models, [name]));
      else setModels([name]);
    },
    setParameters: (parameters) => {
      lastParameters.set(parameters);
      change((now) => ({ ...now, parameters }));
    },
    setModel: (column, name) =>
      setModels(shown.get().models.map((one, index) => (index === column ? name : one))),
    addModel: () => {
      const used = new Set(shown.get().models);
      setModels([...shown.get().models, (models.find((one) => !used.has(one.id)) ?? models[0]).id]);
    },
    removeModel: (column) => {
      const without = (list) => list.filter((_, index) => index !== column);
      change((now) => ({ ...now, turns: now.turns.map((turn) => ({ ...turn, answers: without(turn.answers) })) }));
      setModels(without(shown.get().models));
    },
    /** Ask, after the turns that there are, or in the place of the turn `at` and those behind it. */
    ask: (text, images, at = shown.get().turns.length) => {
      change((now) => ({
        ...now,
        title: now.title || titleOf(text.trim()),
        turns: [...now.turns.slice(0, at), { text, images, answers: [] }],
      }));
      return answerAll(at);
    },
    retry: (column, turn) => {
      change((now) => ({ ...now, turns: now.turns.slice(0, turn + 1) }));
      return run(column, turn, 0);
    },
    setToolResult: (column, turn, step, index, result) => change((now) =>
      withStep(now, column, turn, step, (one) => ({
        toolCalls: one.toolCalls.map((call, place) => (place === index ? { ...call, result } : call)),
      }))),
    sendToolResults: (column, turn, step) => run(column, turn, step + 1),
    remove: async (id) => {
      if (id === shown.get().id) {
        stop();
        shown.set(fresh(models));
      }
      await attempt(() => removeConversation(id));
      await reload();
    },
    body: (column, turn, step) => requestBody(shown.get(), column, turn, step),
  };
}
