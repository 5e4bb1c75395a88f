/** What can be asked of a model; stops and restarts are confirmed first. */
import { ask, modelPath } from "../../lib/api.js";
import { duration } from "../../lib/format.js";
import { t } from "../../lib/i18n.js";
import { attempt, toast } from "../../lib/toasts.js";
import { confirm } from "../../components/confirm.js";

function question(verb, model) {
  if (verb === "stop") {
    return {
      title: t("Stop {model}?", { model }), action: t("Stop"), danger: true,
      text: t("Requests in flight are answered first; new ones are refused until it is started again."),
    };
  }
  if (verb === "restart") {
    return {
      title: t("Restart {model}?", { model }), action: t("Restart"),
      text: t("Its replicas are started again one after the other. With a single replica it answers nothing meanwhile."),
    };
  }
  if (verb === "unload") {
    return {
      title: t("Unload {model}?", { model }), action: t("Unload"),
      text: t("Its memory is freed once the requests in flight are answered. The next request loads it again."),
    };
  }
  if (verb === "forget") {
    return {
      title: t("Forget {model}?", { model }), action: t("Forget"), danger: true,
      text: t("It stands in no file: to serve it again, it has to be deployed anew. Its downloaded files stay."),
    };
  }
  return null;
}

export async function act(verb, model, json) {
  const asked = question(verb, model);
  if (asked && !await confirm(asked)) return;
  await attempt(async () => {
    await ask(modelPath(model, verb), { method: "POST", json: json ?? {} });
    if (verb === "forget") toast(t("{model}: forgotten", { model }), "ok");
    else toast(verb === "keep" ? t("{model}: saved", { model }) : t("{model}: on its way", { model }), "ok");
  });
}

/** How long a model stays loaded, in words. */
export function keepText({ keep, idle_seconds: idle }) {
  if (keep === "always") return t("always loaded");
  if (keep === "manual") return t("loaded and unloaded by hand");
  return idle ? t("loaded on demand, unloaded when idle for {time}", { time: duration(idle) })
    : t("loaded on demand, gives way to others");
}
