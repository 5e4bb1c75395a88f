/** Server-sent events over fetch(), which unlike EventSource can send headers and a body. */
import { send } from "./api.js";
import { t } from "./i18n.js";

const RETRY_SECONDS = [1, 2, 4, 8, 15];

/** The events of an answer as {event, data}, `data` as text. */
export async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read().catch(brokenOff);
      if (done) return;
      const parts = (rest + value).split(/\r?\n\r?\n/);
      rest = parts.pop();
      for (const part of parts) {
        const event = parsed(part);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => null); // it has ended already, or was aborted
  }
}

/** The browser's own words for a cut connection are English, and tell a person nothing. */
function brokenOff(error) {
  if (error.name === "AbortError") throw error;
  console.info("an event stream broke off", error);
  throw new Error(t("The connection to the node broke off."));
}

function parsed(text) {
  let event = "message";
  const data = [];
  for (const line of text.split(/\r?\n/)) {
    const [, field, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (field === "event") event = value;
    if (field === "data") data.push(value);
  }
  return data.length ? { event, data: data.join("\n") } : null;
}

const pause = (seconds, signal) => new Promise((resolve) => {
  const timer = setTimeout(resolve, seconds * 1000);
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    resolve();
  }, { once: true });
});

/** Resolves when the page is, or is not, in a hidden tab; or at `signal`. */
const hidden = (wanted, signal) => new Promise((resolve) => {
  const listening = new AbortController();
  const look = () => {
    if (document.hidden !== wanted && !signal.aborted) return;
    listening.abort();
    resolve();
  };
  document.addEventListener("visibilitychange", look, { signal: listening.signal });
  signal.addEventListener("abort", look, { signal: listening.signal });
  look();
});

/**
 * Follow a stream until `signal`, connecting again when it ends. `onEvent(event, data)` gets each
 * event's JSON and returns false to end it; `onState(error)` gets null when connected. A hidden tab lets the
 * stream go until it is seen again: a browser opens six connections to a node, for all of its tabs together.
 */
export async function follow(path, { signal, onEvent, onState = () => null }) {
  let failures = 0;
  while (!signal.aborted) {
    await hidden(false, signal);
    const seen = new AbortController();
    signal.addEventListener("abort", () => seen.abort(), { signal: seen.signal });
    void hidden(true, seen.signal).then(() => seen.abort());
    if (signal.aborted) seen.abort();
    try {
      const answer = await send(path, { signal: seen.signal, headers: { Accept: "text/event-stream" } });
      onState(null);
      for await (const { event, data } of eventsOf(answer)) {
        failures = 0;
        if (onEvent(event, JSON.parse(data)) === false) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (seen.signal.aborted) continue;
      onState(error);
      if (error.status === 401 || error.status === 403 || error.status === 404) return;
    } finally {
      seen.abort();
    }
    await pause(RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)], signal);
    failures += 1;
  }
}
