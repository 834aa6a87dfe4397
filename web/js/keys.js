// The keyboard. Rows are links, so Enter is the browser's own.

import { useEffect } from '/vendor/preact.js';
import { copy } from './copy.js';
import { isPaused, pause } from './live.js';
import { VIEWS, current, go, link } from './route.js';
import { set, state } from './state.js';

export const HELP = [
  ['/', 'filter'],
  ['j  k', 'next, previous row'],
  ['Enter', 'open the row'],
  ['Esc', 'leave the filter, close, one level up'],
  ['1 – 6', 'Overview, Tasks, Streams, Blocked, Timeline, Compare'],
  ['Space', 'pause, go on'],
  ['y', 'copy the row, or else the view, as text'],
  ['p', 'copy a permalink (it never holds the token)'],
  ['?', 'this help'],
];

let copier = null;

/**
 * What `y` copies: `text(key)` gets the key of the focused row (its
 * `data-row`), or null for the whole view.
 */
export function useCopier(text) {
  useEffect(() => {
    copier = text;
    return () => {
      if (copier === text) copier = null;
    };
  });
}

let lastIndex = -1;

function move(step) {
  const rows = [...document.querySelectorAll('main [data-row]')];
  if (rows.length === 0) return;
  const focused = rows.indexOf(document.activeElement?.closest('[data-row]'));
  // A row that went away under the focus leaves its place behind.
  const from = focused >= 0 ? focused : Math.min(lastIndex, rows.length) - (step < 0 ? 0 : lastIndex < 0 ? 0 : 1);
  lastIndex = Math.max(0, Math.min(rows.length - 1, from + step));
  rows[lastIndex].focus();
  rows[lastIndex].scrollIntoView({ block: 'nearest' });
}

/** The list each view showed last: where Esc leads from one of its members. */
const lists = {};

function remember() {
  lastIndex = -1;
  const { view, id } = current();
  if (id === null) lists[view] = location.hash;
}

function up() {
  const { view, id, params } = current();
  if (id !== null) go(lists[view] ?? link(view));
  else if (Object.keys(params).length > 0) go(link(view));
  else if (view !== 'overview') go(link('overview'));
}

function escape(target) {
  if (state.help) set({ help: false });
  else if (target.matches('input, textarea, select')) target.blur();
  else up();
}

function typed(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  if (key === 'Escape') {
    escape(target);
    return;
  }
  if (target.matches('input, textarea, select') || state.help) return;
  const view = VIEWS[Number(key) - 1];
  if (view) go(link(view[0]));
  else if (key === '/') document.querySelector('#filter')?.focus();
  else if (key === 'j') move(1);
  else if (key === 'k') move(-1);
  else if (key === '?') set({ help: true });
  else if (key === 'p') copy(location.href);
  else if (key === 'y') {
    const row = document.activeElement?.closest('[data-row]')?.dataset.row ?? null;
    const text = copier?.(row);
    if (text) copy(text);
  } else if (key === ' ' && !target.matches('button, summary')) pause(!isPaused());
  else return;
  event.preventDefault();
}

export function listen() {
  addEventListener('keydown', typed);
  addEventListener('hashchange', remember);
  remember();
}
