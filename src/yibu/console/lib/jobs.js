/** What jobs do. */
import { ask } from "./api.js";
import { t } from "./i18n.js";
import { attempt } from "./toasts.js";

export const cancel = (job) => attempt(() => ask(`console/api/jobs/${job.id}`, { method: "DELETE" }));

export function jobText(verb) {
  const texts = {
    start: t("Start"), stop: t("Stop"), restart: t("Restart"), scale: t("Scale"), keep: t("Keep loaded"),
    unload: t("Unload"), pull: t("Download"), forget: t("Forget"), apply: t("Apply"), rollback: t("Roll back"),
  };
  return texts[verb] ?? verb;
}
