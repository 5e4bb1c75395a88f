/** Light or dark: what the reader chose, else what the system prefers. */
import { persisted } from "./store.js";

export const chosenTheme = persisted("yibu.theme", "system");
const dark = matchMedia("(prefers-color-scheme: dark)");

function apply() {
  const chosen = chosenTheme.get();
  const theme = chosen === "system" ? (dark.matches ? "dark" : "light") : chosen;
  document.documentElement.dataset.theme = theme;
  document.querySelector("meta[name=color-scheme]").content = theme;
}

apply();
chosenTheme.subscribe(apply);
dark.addEventListener("change", apply);
