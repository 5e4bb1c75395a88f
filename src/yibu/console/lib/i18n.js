/**
 * Texts in the reader's language. The English sentence is the id; a catalogue is one JSON file a
 * language, whose values are sentences, or sentences by plural category of `count`.
 */
import { persisted } from "./store.js";

export const LANGUAGES = { en: "English", "zh-CN": "简体中文" };

/** What the reader chose; null: what the browser asks for. */
export const chosenLanguage = persisted("yibu.language", null);

let current = "en";
let catalogue = {};
let plurals = new Intl.PluralRules("en");

export function language() {
  return chosenLanguage.get() ?? fromBrowser(navigator.languages ?? [navigator.language]);
}

function fromBrowser(wanted) {
  for (const tag of wanted) {
    const primary = tag.toLowerCase().split("-")[0];
    if (primary === "zh") return "zh-CN";
    if (primary === "en") return "en";
  }
  return "en";
}

export async function loadLanguage() {
  const wanted = language();
  const answer = await fetch(new URL(`../locales/${wanted}.json`, import.meta.url));
  catalogue = await answer.json();
  current = wanted;
  plurals = new Intl.PluralRules(wanted);
  document.documentElement.lang = wanted;
}

function sentence(id, values) {
  const found = catalogue[id] ?? id;
  if (typeof found === "string") return found;
  return found[plurals.select(Number(values.count))] ?? found.other;
}

/** The text of `id`, with its {placeholders} filled in. */
export function t(id, values = {}) {
  return sentence(id, values).replace(/\{(\w+)\}/g, (whole, name) =>
    name in values ? shown(values[name]) : whole);
}

/** As t(), for values that are elements: an array of texts and elements. */
export function rich(id, values) {
  return sentence(id, values).split(/(\{\w+\})/).map((part) => {
    const name = /^\{(\w+)\}$/.exec(part)?.[1];
    return name !== undefined && name in values ? values[name] : part;
  });
}

function shown(value) {
  return typeof value === "number" ? new Intl.NumberFormat(current).format(value) : String(value);
}

export const locale = () => current;
