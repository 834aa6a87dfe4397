// The last ten minutes of counters, in this page's memory.

import { onNewProcess } from './state.js';

const SPAN_S = 600;

/** Series of the timeline, by chart: `[key, label]`. */
export const CHARTS = [
  { title: 'Tasks', unit: '', series: [['alive', 'alive'], ['running', 'running']] },
  { title: 'Streams', unit: '', series: [['streams', 'open']] },
  { title: 'Trouble', unit: '', series: [['blocked', 'blocked workers'], ['findings', 'findings']] },
  { title: 'Rates', unit: 'per second', series: [['spawned', 'tasks spawned'], ['started', 'streams started']] },
];

const KEYS = CHARTS.flatMap((chart) => chart.series.map(([key]) => key));
let points = [];
let before = null;

/** Keeps what one `counters` event says. */
export function record(event) {
  const { counters, coverage } = event;
  const at = Date.parse(event.taken_at) / 1000;
  const last = points.at(-1);
  if (!Number.isFinite(at) || (last && at <= last.at)) return;
  const seconds = before ? at - before.at : 0;
  const rate = (key) => (seconds > 0 ? Math.max(0, counters[key] - before.counters[key]) / seconds : null);
  // A hidden tab or a lost connection leaves a gap, not a line across it.
  if (last && at - last.at > 10) points.push({ at: last.at + 1 });
  points.push({
    at,
    alive: coverage.alive,
    running: coverage.running,
    streams: event.streams,
    blocked: event.workers_blocked,
    findings: Object.values(event.findings).reduce((sum, n) => sum + n, 0),
    spawned: rate('tasks_spawned'),
    started: rate('streams_started'),
  });
  before = { at, counters };
  while (points[0].at < at - SPAN_S) points.shift();
}

/** Columns for the charts: `{ at: [...], alive: [...], ... }`. */
export function columns() {
  const table = { at: points.map((point) => point.at) };
  for (const key of KEYS) table[key] = points.map((point) => point[key] ?? null);
  return table;
}

onNewProcess(() => {
  points = [];
  before = null;
});
