// One endpoint, fetched for a view and fetched again while events come in.

import { useEffect, useRef, useState } from '/vendor/preact.js';
import { getJson } from './api.js';
import { isPaused } from './live.js';
import { state, useApp } from './state.js';

/** The shortest time between two fetches of one list. */
const REFRESH_MS = 2_000;

/**
 * `{ data, error }` of a GET. The last data stay on an error; they
 * are dropped only when something else is asked for.
 */
export function useData(path, params = {}) {
  const { tick } = useApp();
  const key = `${path}?${new URLSearchParams(Object.entries(params).filter(([, v]) => v))}`;
  const [answer, setAnswer] = useState({ key: null, data: null, error: null });
  const flight = useRef(null);
  const last = useRef(0);

  const load = () => {
    flight.current?.abort();
    const abort = new AbortController();
    flight.current = abort;
    last.current = performance.now();
    getJson(path, { params, signal: abort.signal })
      .then((data) => setAnswer({ key, data, error: null }))
      .catch((error) => {
        if (abort.signal.aborted) return;
        setAnswer((old) => ({ key, data: old.key === key ? old.data : null, error }));
      })
      .finally(() => {
        if (flight.current === abort) flight.current = null;
      });
  };

  useEffect(() => {
    load();
    return () => flight.current?.abort();
  }, [key]);

  useEffect(() => {
    const due = performance.now() - last.current >= REFRESH_MS;
    if (due && !flight.current && !isPaused() && state.connection === 'live') load();
  }, [tick]);

  const current = answer.key === key;
  return { data: current ? answer.data : null, error: current ? answer.error : null };
}
