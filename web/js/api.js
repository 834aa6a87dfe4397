// Requests to the debug server. The token travels in a header only, and is
// kept for this tab alone.

import { noteProcess, set } from './state.js';

const TOKEN = 'taskprof.token';
let token = sessionStorage.getItem(TOKEN);

/** Keeps the token for this tab, or forgets it. */
export function setToken(value) {
  token = value || null;
  if (token) sessionStorage.setItem(TOKEN, token);
  else sessionStorage.removeItem(TOKEN);
}

/** An answer that is not the one asked for, in words for the reader. */
export class ApiError extends Error {
  constructor(status, message, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Sends a GET, or what `method` says, and gives the response, or throws an `ApiError`. */
export async function request(path, { params = {}, method = 'GET', signal, accept = 'application/json' } = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== '') query.set(key, value);
  }
  const headers = { Accept: accept };
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(query.size > 0 ? `${path}?${query}` : path, {
      method,
      headers,
      signal,
      cache: 'no-store',
      credentials: 'omit',
      redirect: 'error',
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0, 'No answer: the process has ended, is frozen, or cannot be reached.');
  }
  if (response.ok) return response;
  throw await refusal(response);
}

async function refusal(response) {
  const said = (await response.text().catch(() => '')).slice(0, 2000).trim();
  const retryAfter = Number(response.headers.get('retry-after')) || null;
  if (response.status === 401) {
    const refused = token !== null;
    setToken(null);
    set({
      connection: 'unauthorized',
      trouble: refused ? 'The server did not accept that token.' : null,
    });
    return new ApiError(401, 'This server wants a token.');
  }
  const message = explain(said) || `${response.status} ${response.statusText}`;
  return new ApiError(response.status, `The server says: ${message.replace(/\.?$/, '.')}`, retryAfter);
}

/** The sentence in an error body: JSON `{error: ...}` or plain text. */
function explain(body) {
  try {
    const { error, expected } = JSON.parse(body);
    return expected ? `${error}. Expected: ${expected}` : error;
  } catch {
    return body;
  }
}

/** GETs JSON. */
export async function getJson(path, options) {
  const body = await (await request(path, options)).json();
  noteProcess(body.process);
  return body;
}

/** Fetches a file and hands it to the browser to save under `name`. */
export async function download(path, params, name) {
  const response = await request(path, { params, accept: '*/*' });
  save(await response.blob(), name);
}

/** Lets the browser save a blob. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const anchor = document.createElement('a');
  anchor.href = url;
  anchor.download = name;
  anchor.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
