/** A value that components subscribe to. */
import { useEffect, useState } from "./html.js";

export function createStore(initial) {
  let value = initial;
  const listeners = new Set();
  return {
    get: () => value,
    set(next) {
      value = typeof next === "function" ? next(value) : next;
      for (const listener of [...listeners]) listener(value);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** The store's value; the component renders again when it changes. */
export function useStore(store) {
  const [value, setValue] = useState(store.get());
  useEffect(() => {
    setValue(store.get());
    return store.subscribe(setValue);
  }, [store]);
  return value;
}

/** Keep a store's value in localStorage, where the browser lets us. */
export function persisted(key, initial) {
  let value = initial;
  try {
    const kept = localStorage.getItem(key);
    if (kept !== null) value = JSON.parse(kept);
  } catch (error) {
    console.info(`${key} cannot be read from this browser's storage`, error);
  }
  const store = createStore(value);
  store.subscribe((next) => {
    try {
      localStorage.setItem(key, JSON.stringify(next));
    } catch (error) {
      console.info(`${key} cannot be kept in this browser's storage`, error);
    }
  });
  return store;
}
