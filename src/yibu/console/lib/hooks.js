/** Hooks that several pages need. */
import { ask } from "./api.js";
import { useCallback, useEffect, useRef, useState } from "./html.js";
import { chosenLanguage, t } from "./i18n.js";
import { createStore, useStore } from "./store.js";

/** {data, error, reload} of a GET; asked again when the path or the language changes, and every `every` seconds. */
export function useAsked(path, every = null) {
  const [state, setState] = useState({ data: null, error: null });
  const language = useStore(chosenLanguage);
  const running = useRef(null);
  const reload = useCallback(async () => {
    running.current?.abort();
    if (path === null) return;
    const aborter = new AbortController();
    running.current = aborter;
    try {
      const data = await ask(path, { signal: aborter.signal });
      setState({ data, error: null });
    } catch (error) {
      if (!aborter.signal.aborted) setState((now) => ({ data: now.data, error }));
    }
  }, [path, language]);
  useEffect(() => {
    void reload();
    const timer = every && setInterval(() => document.hidden || reload(), every * 1000);
    return () => {
      clearInterval(timer);
      running.current?.abort();
    };
  }, [reload, every]);
  return { ...state, reload };
}

const kept = new Map();

/** As useState(), for what a person has written or chosen: it is there again when the page is opened again. */
export function useKept(name, initial) {
  if (!kept.has(name)) kept.set(name, createStore(initial));
  const store = kept.get(name);
  return [useStore(store), store.set];
}

/** The value, once it has not changed for so many milliseconds. */
export function useDebounced(value, milliseconds = 300) {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = setTimeout(() => setSettled(value), milliseconds);
    return () => clearTimeout(timer);
  }, [value, milliseconds]);
  return settled;
}

const NEAR_END = 80;

/** Keeps what scrolls at its end until the person scrolls up; {toEnd, onScroll}. Events of scrolling come late: by
 * then more may have been written, so that only a move upwards is the person's. */
export function useEnd(element) {
  const state = useRef({ follows: true, top: 0 });
  const toEnd = () => {
    if (!state.current.follows || !element.current) return;
    element.current.scrollTop = element.current.scrollHeight;
    state.current.top = element.current.scrollTop;
  };
  const onScroll = ({ target }) => {
    const isNear = target.scrollHeight - target.scrollTop - target.clientHeight < NEAR_END;
    const follows = isNear || (state.current.follows && target.scrollTop >= state.current.top);
    state.current = { follows, top: target.scrollTop };
  };
  return { toEnd, onScroll };
}

export function useTitle(title) {
  useEffect(() => {
    document.title = t("{page} · yibu", { page: title });
  }, [title]);
}
