/** What runs, kept up to date by the node's event stream. */
import { session } from "./api.js";
import { follow } from "./events.js";
import { createStore } from "./store.js";
import { jobText } from "./jobs.js";
import { toast } from "./toasts.js";
import { t } from "./i18n.js";

/** The latest `overview`; null before the first. */
export const overview = createStore(null);
/** Why nothing comes; null while it does. */
export const connection = createStore(null);

let following = null;

export function startLive() {
  session.subscribe(restart);
  restart();
}

/** Ask again, for texts in another language. */
export function restart() {
  following?.abort();
  following = null;
  if (!session.get()?.signed_in) {
    overview.set(null);
    return;
  }
  following = new AbortController();
  void follow("console/api/events", {
    signal: following.signal, onEvent: received, onState: connection.set,
  });
}

function received(event, data) {
  if (event === "overview") overview.set(data);
  else if (event === "state") changeModel(data.model, ended(data));
  else if (event === "phase") changeModel(data.model, { phase: data.phase });
  else if (event === "progress") changeModel(data.model, { progress: data });
  else if (event === "job") jobChanged(data);
  else if (event === "end" && data.reason === "signed_out") {
    session.set((now) => ({ ...now, signed_in: false, csrf: null }));
    return false;
  }
  return true;
}

const ended = ({ replica, state, cause }) => (replica ? {} : { state, cause });

function changeModel(name, change) {
  overview.set((now) => now && {
    ...now,
    models: now.models.map((model) => (model.name === name ? { ...model, ...change } : model)),
  });
}

function jobChanged(job) {
  overview.set((now) => now && {
    ...now, jobs: [job, ...(now.jobs ?? []).filter((other) => other.id !== job.id)],
  });
  if (job.error) {
    const hint = job.error.hint ? `\n${job.error.hint}` : "";
    toast(t("{verb} {models}: {message}", {
      verb: jobText(job.verb), models: job.models.join(", "), message: job.error.message + hint,
    }), "bad");
  }
}
