/** Requests to the node: the console's own API and the gateway's, with session and CSRF token. */
import { language, t } from "./i18n.js";
import { createStore } from "./store.js";

/** What `GET console/api/session` answered; null before the first answer. */
export const session = createStore(null);

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message);
    this.name = "ApiError";
    this.status = status;
    this.code = error.code ?? null;
    this.param = error.param ?? null;
  }
}

/** The address of an API path, wherever the page was loaded from. */
export const address = (path) => new URL(path, document.baseURI).href;

export const modelPath = (name, verb) =>
  `console/api/models/${encodeURIComponent(name)}/${verb}`;

async function failure(answer) {
  const text = await answer.text();
  try {
    const { error } = JSON.parse(text);
    return new ApiError(answer.status, typeof error === "string" ? { message: error } : error);
  } catch {
    // Not the API's envelope: a proxy in between has answered.
    return new ApiError(answer.status, { message: text.slice(0, 400) || answer.statusText });
  }
}

/** fetch(), whose own words for a node that is gone tell a person nothing. */
async function reached(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    console.info(`${url} does not answer`, error);
    throw new Error(t("The node does not answer. See on its machine whether it runs: yibu ps"));
  }
}

/** fetch() with what the node wants to see; raises ApiError for every status that is not a success. */
export async function send(path, { method = "GET", json, body, signal, headers = {} } = {}) {
  const csrf = session.get()?.csrf;
  const answer = await reached(address(path), {
    method, signal,
    body: json === undefined ? body : JSON.stringify(json),
    headers: {
      "Accept-Language": language(),
      ...(json === undefined ? {} : { "Content-Type": "application/json" }),
      ...(csrf && method !== "GET" ? { "X-CSRF-Token": csrf } : {}),
      ...headers,
    },
  });
  if (answer.ok) return answer;
  const error = await failure(answer);
  if (error.status === 401 && error.code === "signed_out") await loadSession();
  throw error;
}

/** The JSON that a path answers; null where it answers nothing. */
export async function ask(path, options) {
  const answer = await send(path, options);
  return answer.status === 204 ? null : answer.json();
}

export async function loadSession() {
  session.set(await ask("console/api/session"));
}

export async function signIn(key) {
  session.set(await ask("console/api/session", { method: "POST", json: { key } }));
}

export async function signOut() {
  await ask("console/api/session", { method: "DELETE" });
  await loadSession();
}

/** A path with those parameters that have a value. */
export function withQuery(path, parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const one of [value].flat()) {
      if (one !== null && one !== undefined && one !== "") query.append(name, one);
    }
  }
  return query.size ? `${path}?${query}` : path;
}
