// The stream of events: one fetch that stays open while the tab is visible.
//
// `EventSource` cannot send a bearer token, and six open ones would block a
// browser's seventh request to the server; so the stream is read with `fetch`
// and closed while the tab is hidden or the page is paused.

import { useEffect, useRef, useState } from '/vendor/preact.js';
import { ApiError, getJson, request } from './api.js';
import { record } from './history.js';
import { noteProcess, set, state, useApp } from './state.js';

/** Silence after which the stream is given up: the server says something every ten seconds. */
const SILENCE_MS = 15_000;
const BACKOFF_MS = [500, 1_000, 2_000, 4_000, 8_000, 15_000];

let attempt = 0;
let countedAt = 0;
let controller = null;
let retryTimer = null;
let paused = false;

/** Cuts a stream of server-sent events into `{ event, data }`. */
export function sseParser(emit) {
  let rest = '';
  let event = 'message';
  let data = [];
  return (chunk) => {
    rest += chunk;
    let end;
    while ((end = rest.search(/\r\n|\n|\r(?!$)/)) >= 0) {
      const line = rest.slice(0, end);
      rest = rest.slice(end + (rest.startsWith('\r\n', end) ? 2 : 1));
      if (line === '') {
        if (data.length > 0) emit(event, data.join('\n'));
        event = 'message';
        data = [];
      } else if (!line.startsWith(':')) {
        const colon = line.indexOf(':');
        const field = colon < 0 ? line : line.slice(0, colon);
        const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
        if (field === 'event') event = value;
        else if (field === 'data') data.push(value);
      }
    }
  };
}

function apply(event, text) {
  const body = JSON.parse(text);
  noteProcess(body.process);
  attempt = 0;
  const now = performance.now();
  const patch = { connection: 'live', trouble: null, retryAt: null, heardAt: now };
  if (event === 'findings') patch.report = body;
  if (event === 'counters') {
    patch.counters = body;
    if (state.connection === 'live') patch.gap = now - countedAt;
    countedAt = now;
    patch.tick = state.tick + 1;
    record(body);
  }
  set(patch);
}

async function follow(abort) {
  const response = await request('/debug/events', {
    signal: abort.signal,
    accept: 'text/event-stream',
  });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  const feed = sseParser(apply);
  for (;;) {
    const silence = setTimeout(() => abort.abort('silence'), SILENCE_MS);
    const { done, value } = await reader.read().finally(() => clearTimeout(silence));
    if (done) throw new ApiError(0, 'The server closed the stream of events.');
    feed(value);
  }
}

/** Opens the stream unless it is open, paused, or nobody looks. */
export function connect() {
  clearTimeout(retryTimer);
  if (controller || paused || document.hidden) return;
  const abort = new AbortController();
  controller = abort;
  if (state.connection !== 'disconnected') set({ connection: 'connecting', retryAt: null });
  follow(abort).catch((error) => {
    if (controller !== abort) return; // closed on purpose
    controller = null;
    if (error.status === 401) return; // the sign-in box calls connect()
    retry(error, abort.signal.reason === 'silence');
  });
}

function retry(error, silent) {
  const wait = Math.max(
    (error.retryAfter ?? 0) * 1000,
    BACKOFF_MS[Math.min(attempt, BACKOFF_MS.length - 1)] * (0.8 + 0.4 * Math.random()),
  );
  attempt += 1;
  set({
    connection: error.status === 429 ? 'limited' : 'disconnected',
    trouble: silent
      ? `Nothing heard for ${SILENCE_MS / 1000} s: the process may be frozen.`
      : error.status === undefined
        ? 'The connection was lost: the process has ended or may be frozen.'
        : error.message,
    retryAt: performance.now() + wait,
  });
  retryTimer = setTimeout(connect, wait);
}

function close() {
  clearTimeout(retryTimer);
  const open = controller;
  controller = null;
  open?.abort();
}

/** Tries again at once. */
export function reconnect() {
  attempt = 0;
  close();
  connect();
}

export const isPaused = () => paused;

/** Freezes what is shown, or goes on. */
export function pause(on) {
  paused = on;
  if (on) {
    close();
    set({ connection: 'paused', retryAt: null });
  } else {
    set({ connection: 'connecting' });
    connect();
  }
}

/** Starts following, and follows the tab's visibility. */
export function start() {
  document.addEventListener('visibilitychange', () => {
    if (paused || state.connection === 'unauthorized') return;
    if (document.hidden) {
      close();
      set({ connection: 'hidden', retryAt: null });
    } else {
      attempt = 0;
      connect();
    }
  });
  connect();
}

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
    if (due && !flight.current && !paused && state.connection === 'live') load();
  }, [tick]);

  const current = answer.key === key;
  return { data: current ? answer.data : null, error: current ? answer.error : null };
}
