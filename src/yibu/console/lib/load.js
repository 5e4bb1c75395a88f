/** Libraries that are loaded when they are first needed. */
import { t } from "./i18n.js";

const vendor = (path) => new URL(`../vendor/${path}`, import.meta.url).href;
const loading = new Map();
const missing = (path) => new Error(t("{path} cannot be loaded: the node does not answer.", { path }));

function once(key, load) {
  if (!loading.has(key)) {
    loading.set(key, load().catch((error) => {
      loading.delete(key);
      throw error;
    }));
  }
  return loading.get(key);
}

/** A classic script, which leaves what it defines in the window. */
function script(path, name) {
  return once(path, () => new Promise((resolve, reject) => {
    const element = document.createElement("script");
    element.src = vendor(path);
    element.onload = () => resolve(window[name]);
    element.onerror = () => reject(missing(path));
    document.head.append(element);
  }));
}

function stylesheet(path) {
  return once(path, () => new Promise((resolve, reject) => {
    const element = document.createElement("link");
    element.rel = "stylesheet";
    element.href = vendor(path);
    element.onload = () => resolve();
    element.onerror = () => reject(missing(path));
    document.head.append(element);
  }));
}

export const marked = () => once("marked", () => import(vendor("marked/marked.js")));
export const highlight = () =>
  once("highlight", async () => (await import(vendor("highlight/highlight.js"))).default);
export const purify = () => script("dompurify/purify.js", "DOMPurify");
export const katex = async () => {
  await stylesheet("katex/katex.css");
  return script("katex/katex.js", "katex");
};
export const plot = async () => {
  await stylesheet("uplot/uPlot.css");
  return script("uplot/uPlot.js", "uPlot");
};
