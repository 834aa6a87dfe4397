// Numbers, times and names as people read them.

/** A duration in the unit a reader wants: `850ns`, `12ms`, `3.2s`, `8m03s`, `2d04h`. */
export function duration(ns) {
  if (ns === null || ns === undefined) return '–';
  if (ns < 0) return `-${duration(-ns)}`;
  const pad = (n) => String(Math.floor(n)).padStart(2, '0');
  const secs = Math.floor(ns / 1e9);
  if (ns < 1e3) return `${ns}ns`;
  if (ns < 1e6) return `${Math.floor(ns / 1e3)}µs`;
  if (ns < 1e9) return `${Math.floor(ns / 1e6)}ms`;
  if (secs < 10) return `${secs}.${Math.floor(ns / 1e8) % 10}s`;
  if (secs < 60) return `${secs}s`;
  if (secs < 3_600) return `${Math.floor(secs / 60)}m${pad(secs % 60)}s`;
  if (secs < 86_400) return `${Math.floor(secs / 3_600)}h${pad((secs / 60) % 60)}m`;
  return `${Math.floor(secs / 86_400)}d${pad((secs / 3_600) % 24)}h`;
}

/** An integer with separators; what is absent is a dash, never a zero. */
export function count(n) {
  return n === null || n === undefined ? '–' : n.toLocaleString('en-US');
}

/** `1 task`, `2 tasks`. */
export function plural(n, noun) {
  return `${count(n)} ${noun}${n === 1 ? '' : 's'}`;
}

export function bytes(n) {
  if (n === null || n === undefined) return '–';
  if (n < 1024) return `${n} B`;
  const units = ['KiB', 'MiB', 'GiB', 'TiB'];
  let value = n / 1024;
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value < 10 ? value.toFixed(1) : Math.round(value)} ${units[unit]}`;
}

/** A part of a whole as a percentage that never rounds to a false 0 or 100. */
export function percent(part, whole) {
  if (!whole) return '–';
  const share = (100 * part) / whole;
  if (share > 0 && share < 1) return '<1%';
  if (share > 99 && share < 100) return '>99%';
  return `${Math.round(share)}%`;
}

export function ago(ns) {
  return ns === null || ns === undefined ? 'never' : `${duration(ns)} ago`;
}

/** The wall-clock time of an RFC 3339 instant, in the reader's zone. */
export function clock(instant) {
  const date = new Date(instant);
  return Number.isNaN(date.getTime()) ? '–' : date.toLocaleTimeString('en-GB');
}

/**
 * Text from the process as it can be shown on one line: control characters,
 * and those that reorder or hide text, become visible.
 */
export function clean(text) {
  return String(text).replace(
    /[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g,
    (c) => `\\u{${c.charCodeAt(0).toString(16)}}`,
  );
}

/**
 * A source path without what says nothing: the registry's directory, the
 * toolchain's, and all but the last part before `src/` of the program's own.
 */
export function path(file) {
  const text = clean(file);
  const known =
    /\/registry\/src\/[^/]+\/(.+)$/.exec(text) ??
    /\/git\/checkouts\/(.+)$/.exec(text) ??
    /\/rustc\/[0-9a-f]+\/(.+)$/.exec(text) ??
    /\/rustlib\/src\/rust\/(.+)$/.exec(text);
  if (known) return known[1];
  return text.startsWith('/') ? text.replace(/^.*\/(?=[^/]+\/(?:src|examples|tests|benches)\/)/, '') : text;
}

/** `file:line` of a location object or of a text that already is one. */
export function place(location) {
  if (!location) return null;
  if (typeof location === 'string') return path(location);
  return location.line > 0 ? `${path(location.file)}:${location.line}` : path(location.file);
}

/** A file name for a download: process, pid and the moment. */
export function fileName(process, what) {
  const name = (process?.name ?? 'process').replace(/[^A-Za-z0-9._-]+/g, '_');
  const stamp = new Date().toISOString().replace(/[:.]/g, '-').slice(0, 19);
  return `${name}-${process?.pid ?? 0}-${stamp}${what}`;
}
