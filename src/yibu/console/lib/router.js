/** Addresses of pages: `#/models/chat?tab=logs` → {page: "models", rest: ["chat"], query}. */
import { createStore } from "./store.js";

/** An address that somebody has mistyped is taken as it is. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function parse() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...rest] = path.split("/").map(decoded);
  return { page: page || "overview", rest, query: new URLSearchParams(query) };
}

export const route = createStore(parse());

addEventListener("hashchange", () => route.set(parse()));

export function link(page, ...rest) {
  return `#/${[page, ...rest].map(encodeURIComponent).join("/")}`;
}

export function go(page, ...rest) {
  location.hash = link(page, ...rest);
}
