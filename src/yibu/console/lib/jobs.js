/** What jobs do. */
import { t } from "./i18n.js";

export function jobText(verb) {
  const texts = {
    start: t("Start"), stop: t("Stop"), restart: t("Restart"), scale: t("Scale"), keep: t("Keep loaded"),
    unload: t("Unload"), forget: t("Forget"), apply: t("Apply"), rollback: t("Roll back"),
  };
  return texts[verb] ?? verb;
}
