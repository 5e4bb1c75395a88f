/** The conversation on the page, and what can be done with it. */
import { useEffect, useRef, useState } from "../../lib/html.js";
import { persisted } from "../../lib/store.js";
import { allConversations, keepConversation, removeConversation } from "../../lib/database.js";
import { t } from "../../lib/i18n.js";
import { toast } from "../../lib/toasts.js";
import { answerStep } from "./answering.js";
import {
  NO_PARAMETERS, newConversation, requestBody, withNewStep, withStep,
} from "./conversation.js";

const lastModels = persisted("yibu.chat.models", []);
const lastParameters = persisted("yibu.chat.parameters", NO_PARAMETERS);
const TITLE_LENGTH = 60;

function fresh(models) {
  const names = new Set(models.map((model) => model.id));
  const kept = lastModels.get().filter((name) => names.has(name));
  return newConversation(kept.length ? kept : [models[0].id], { ...NO_PARAMETERS, ...lastParameters.get() });
}

export function useChat(models) {
  const [conversation, setConversation] = useState(() => fresh(models));
  const [history, setHistory] = useState([]);
  const current = useRef(conversation);
  const running = useRef(new Set());
  const change = (update) => {
    current.current = update(current.current);
    setConversation(current.current);
  };
  const reload = () => allConversations().then(setHistory, (error) =>
    console.info("conversations cannot be kept in this browser", error));
  const keep = () => keepConversation(current.current).then(reload, (error) =>
    console.info("the conversation is not kept", error));
  const stop = () => running.current.forEach((aborter) => aborter.abort());
  useEffect(() => {
    void reload();
    return stop;
  }, []);

  async function run(column, turn, step) {
    const id = current.current.id;
    let body;
    try {
      change((now) => withNewStep(now, column, turn, step));
      body = requestBody(current.current, column, turn, step);
    } catch (error) {
      // The only part that is parsed is what the person wrote as tools.
      change((now) => withStep(now, column, turn, step, () => ({ state: "failed", error: t("The tools are not JSON: {message}", { message: error.message }) })));
      return;
    }
    const aborter = new AbortController();
    running.current.add(aborter);
    await answerStep(body, aborter.signal, (part) => {
      if (current.current.id === id) change((now) => withStep(now, column, turn, step, () => part));
    });
    running.current.delete(aborter);
    if (current.current.id === id) {
      change((now) => ({ ...now, changed: Date.now() }));
      await keep();
    }
  }

  const answerAll = (turn) => Promise.all(current.current.models.map((_, column) => run(column, turn, 0)));

  /** Show another one; what is being answered in this one is stopped. */
  function open(next) {
    stop();
    current.current = next;
    setConversation(next);
  }
  const setModels = (names) => {
    lastModels.set(names);
    change((now) => ({ ...now, models: names }));
  };

  return {
    conversation, history, open, stop,
    begin: () => open(fresh(models)),
    setParameters: (parameters) => {
      lastParameters.set(parameters);
      change((now) => ({ ...now, parameters }));
    },
    setModel: (column, name) =>
      setModels(current.current.models.map((one, index) => (index === column ? name : one))),
    addModel: () => {
      const used = new Set(current.current.models);
      setModels([...current.current.models, (models.find((one) => !used.has(one.id)) ?? models[0]).id]);
    },
    removeModel: (column) => {
      const without = (list) => list.filter((_, index) => index !== column);
      change((now) => ({ ...now, turns: now.turns.map((turn) => ({ ...turn, answers: without(turn.answers) })) }));
      setModels(without(current.current.models));
    },
    /** Ask, after the turns that there are, or in the place of the turn `at` and those behind it. */
    ask: (text, images, at = current.current.turns.length) => {
      change((now) => ({
        ...now,
        title: now.title || text.trim().slice(0, TITLE_LENGTH),
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
      try {
        await removeConversation(id);
      } catch (error) {
        toast(error.message, "bad");
      }
      if (id === current.current.id) open(fresh(models));
      await reload();
    },
    body: (column, turn, step) => requestBody(current.current, column, turn, step),
  };
}
