/** What runs, kept up to date by the node's event stream. */
import { ask, loadSession, session } from "./api.js";
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
const KEPT = 50;

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
  if (event === "overview") overview.set((now) => ({ ...data, jobs: together(data.jobs, now?.jobs ?? []) }));
  else if (event === "state") changeModel(data.model, ended(data));
  else if (event === "phase") changeModel(data.model, { phase: data.phase });
  else if (event === "progress") changeModel(data.model, { progress: data });
  else if (event === "job") jobChanged(data);
  else if (event === "end" && data.reason === "signed_out") {
    void loadSession(); // the first key may just have closed the gateway
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

/** Jobs that run, and those known here; of one that ended while nobody listened, its end is asked for. */
function together(running, known) {
  const ids = new Set(running.map((job) => job.id));
  const others = known.filter((job) => !ids.has(job.id));
  others.filter((job) => !job.ended).forEach(askForEnd);
  return [...running, ...others].sort((one, other) => other.started - one.started).slice(0, KEPT);
}

async function askForEnd(job) {
  try {
    jobChanged(await ask(`console/api/jobs/${job.id}`));
  } catch (error) {
    if (error.status !== 404) return; // the next overview asks again
    const message = t("The node was started again meanwhile, and knows no more of it.");
    jobChanged({ ...job, ended: job.started, error: { message, hint: "", cause: null } });
  }
}

function jobChanged(job) {
  const before = overview.get()?.jobs;
  if (!before) return; // of an earlier time
  const known = before.find((other) => other.id === job.id);
  overview.set((now) => ({ ...now, jobs: [job, ...now.jobs.filter((other) => other.id !== job.id)] }));
  if (job.error && !known?.ended) {
    const hint = job.error.hint ? `\n${job.error.hint}` : "";
    toast(t("{verb} {models}: {message}", {
      verb: jobText(job.verb), models: job.models.join(", "), message: job.error.message + hint,
    }), "bad");
  }
}
