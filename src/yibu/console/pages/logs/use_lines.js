/** The lines that match, from the node's stream. */
import { withQuery } from "../../lib/api.js";
import { follow } from "../../lib/events.js";
import { useEffect, useRef, useState } from "../../lib/html.js";

const KEPT = 3000;
const FIRST = 300;
const MILLISECONDS_BETWEEN = 100;

/** `follows` false keeps what is shown; `waiting` true asks for nothing yet. */
export function useLines(filter, follows, waiting) {
  const [lines, setLines] = useState([]);
  const [lost, setLost] = useState(0);
  const [error, setError] = useState(null);
  const count = useRef(0);
  const path = withQuery("console/api/logs/follow", { ...filter, lines: FIRST });
  useEffect(() => {
    if (!follows || waiting) return undefined;
    const aborter = new AbortController();
    let fresh = [];
    let first = true;
    const show = () => {
      if (!fresh.length && !first) return;
      const batch = fresh;
      const replaces = first;
      fresh = [];
      first = false;
      setLines((now) => (replaces ? batch : [...now, ...batch]).slice(-KEPT));
    };
    const timer = setInterval(show, MILLISECONDS_BETWEEN);
    const connected = (problem) => {
      setError(problem);
      if (problem) return;
      // Connected, or connected again: the last lines come anew.
      fresh = [];
      first = true;
      setLost(0);
    };
    const onEvent = (event, data) => {
      if (event === "line") {
        count.current += 1;
        fresh.push({ ...data, key: count.current });
      } else if (event === "lost") setLost((now) => now + data.lines);
    };
    void follow(path, { signal: aborter.signal, onEvent, onState: connected });
    return () => {
      aborter.abort();
      clearInterval(timer);
    };
  }, [path, follows, waiting]);
  return { lines, lost, error, clear: () => setLines([]) };
}
