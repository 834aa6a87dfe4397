// The page's only shared mutable state, and how views follow it.
//
// Everything else is either in the URL's hash (route.js) or local to a view.

import { useEffect, useReducer } from '/vendor/preact.js';

const listeners = new Set();

export const state = {
  /** 'connecting' | 'live' | 'paused' | 'hidden' | 'disconnected' | 'limited' | 'unauthorized' */
  connection: 'connecting',
  /** Why the events stopped, in a sentence. */
  trouble: null,
  // Times of `performance.now()`: the next attempt, the last event, and the
  // time between two events, which is longer for a large process.
  retryAt: null,
  heardAt: null,
  gap: 0,
  /** The process that answers; and, once another took its place, the one before. */
  process: null,
  replaced: null,
  // The last two events, and how many counters there have been: views refresh on it.
  report: null,
  counters: null,
  tick: 0,
  toast: null,
  help: false,
};

/** Changes the state and tells every view. */
export function set(patch) {
  Object.assign(state, patch);
  for (const listener of listeners) listener();
}

/** Renders the calling component again after each change of the state. */
export function useApp() {
  const [, again] = useReducer((n) => n + 1, 0);
  useEffect(() => {
    listeners.add(again);
    return () => listeners.delete(again);
  }, []);
  return state;
}

/** Renders the calling component again every `ms`: for ages that grow. */
export function useClock(ms) {
  const [, again] = useReducer((n) => n + 1, 0);
  useEffect(() => {
    const timer = setInterval(again, ms);
    return () => clearInterval(timer);
  }, [ms]);
  return performance.now();
}

let toastTimer;

/** Says something for three seconds; screen readers hear it. */
export function toast(text) {
  clearTimeout(toastTimer);
  set({ toast: text });
  toastTimer = setTimeout(() => set({ toast: null }), 3000);
}

/** Takes note of which process answered; a new boot id is a new process. */
export function noteProcess(process) {
  if (!process) return;
  const before = state.process;
  if (before && before.boot_id !== process.boot_id) {
    set({ process, replaced: { before, at: new Date() }, report: null, counters: null });
    for (const listener of rebootListeners) listener();
  } else if (before) {
    state.process = process;
  } else {
    set({ process });
  }
}

const rebootListeners = new Set();

/** Calls `listener` when the process watched is a new one. */
export function onNewProcess(listener) {
  rebootListeners.add(listener);
}
