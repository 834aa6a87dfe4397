// What is shown lives in the URL's hash, so that a view can be linked:
// `#/tasks?filter=state:idle`, `#/streams/12`. Nothing secret ever goes there.

import { useEffect, useState } from '/vendor/preact.js';

export const VIEWS = [
  ['overview', 'Overview'],
  ['tasks', 'Tasks'],
  ['streams', 'Streams'],
  ['blocked', 'Blocked'],
  ['timeline', 'Timeline'],
  ['compare', 'Compare'],
];

/** Reads a hash into `{ view, id, params }`; an unknown view is the overview. */
export function parse(hash) {
  const [path = '', query = ''] = hash.replace(/^#\/?/, '').split('?', 2);
  const [view, id] = path.split('/').map(decode);
  return {
    view: VIEWS.some(([name]) => name === view) ? view : 'overview',
    id: id || null,
    params: Object.fromEntries(new URLSearchParams(query)),
  };
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}

/** The hash for a view; empty parameters are left out. */
export function link(view, id = null, params = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== '') query.set(key, value);
  }
  const tail = query.size > 0 ? `?${query}` : '';
  return `#/${view}${id === null ? '' : `/${encodeURIComponent(id)}`}${tail}`;
}

/** Goes there; `replace` leaves no step in the history. */
export function go(hash, { replace = false } = {}) {
  if (replace) {
    history.replaceState(null, '', hash);
    dispatchEvent(new HashChangeEvent('hashchange'));
  } else {
    location.hash = hash;
  }
}

export const current = () => parse(location.hash);

/** The route, followed. */
export function useRoute() {
  const [route, setRoute] = useState(current);
  useEffect(() => {
    const follow = () => setRoute(current());
    addEventListener('hashchange', follow);
    return () => removeEventListener('hashchange', follow);
  }, []);
  return route;
}
