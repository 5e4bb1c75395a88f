/** Addresses of pages: `#/models/chat?tab=logs` → {page: "models", rest: ["chat"], query}. */
import { createStore } from "./store.js";

function parse() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page = "", ...rest] = path.split("/").map(decodeURIComponent);
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
