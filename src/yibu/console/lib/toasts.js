/** Short messages in a corner. */
import { createStore } from "./store.js";

const SECONDS = { info: 5, ok: 4, bad: 15 };
let count = 0;

export const toasts = createStore([]);

export function dismiss(id) {
  toasts.set((now) => now.filter((one) => one.id !== id));
}

/** `kind` is info, ok or bad. */
export function toast(text, kind = "info") {
  count += 1;
  const id = count;
  toasts.set((now) => [...now.slice(-3), { id, text, kind }]);
  setTimeout(() => dismiss(id), SECONDS[kind] * 1000);
}

/** Run what a person asked for, and show what went wrong. */
export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name !== "AbortError") toast(error.message, "bad");
    return undefined;
  }
}
