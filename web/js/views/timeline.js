// The last ten minutes: four charts that share one cursor.
//
// Drawn as SVG: eight short lines need no library, and what is drawn takes its
// colours from the style sheet like everything else.

import { html, useRef, useState } from '/vendor/preact.js';
import { count, duration } from '../format.js';
import { CHARTS, columns } from '../history.js';
import { useCopier } from '../keys.js';
import { useApp } from '../state.js';
import { Empty, Section, Table, useWidth } from '../ui.js';

/** Line styles, so that series are told apart without colour. */
const DASHES = [null, '6 4', '2 3'];
const TONES = ['link', 'warn', 'crit'];
const HEIGHT = 120;
const BOX = { left: 62, right: 14, top: 6, bottom: 20 };

const round = (n) => (n === null || n === undefined ? '–' : count(Math.round(n * 10) / 10));
const clockOf = (at) => new Date(at * 1000).toLocaleTimeString('en-GB');

/** The least 1, 2 or 5 times a power of ten that is not below `n`. */
function nice(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  return power * [1, 2, 5, 10].find((step) => step * power >= n);
}

/** A scale that shows change: from zero, unless all values are far from it. */
function scale(values) {
  const high = Math.max(1, ...values);
  const low = Math.min(...values, high);
  const spread = Math.max(high - low, high * 0.002, 1);
  const step = Math.max(1, nice(spread / 2));
  const from = low > 4 * spread ? Math.floor(low / step) * step : 0;
  const each = from === 0 ? Math.max(1, nice(high / 2)) : step;
  const lines = Math.ceil((high - from) / each) || 2;
  return { from, to: from + lines * each, ticks: Array.from({ length: lines + 1 }, (_, i) => from + i * each) };
}

/** An SVG path; a value that is not known lifts the pen. */
function line(at, values, x, y) {
  let pen = 'M';
  let path = '';
  values.forEach((value, index) => {
    if (value === null) pen = 'M';
    else {
      path += `${pen}${x(at[index]).toFixed(1)} ${y(value).toFixed(1)}`;
      pen = 'L';
    }
  });
  return path;
}

function Plot({ chart, table, width, cursor, onCursor }) {
  const { at } = table;
  const [first, last] = [at[0], at.at(-1)];
  const inner = width - BOX.left - BOX.right;
  const { from, to, ticks } = scale(chart.series.flatMap(([key]) => table[key].filter((value) => value !== null)));
  const x = (time) => BOX.left + ((time - first) / (last - first)) * inner;
  const y = (value) => HEIGHT - BOX.bottom - ((value - from) / (to - from)) * (HEIGHT - BOX.top - BOX.bottom);
  const point = (event) => {
    const share = (event.clientX - event.currentTarget.getBoundingClientRect().left - BOX.left) / inner;
    const time = first + share * (last - first);
    onCursor(share < 0 || share > 1 ? null : at.findIndex((one) => one >= time));
  };
  const steps = Math.max(2, Math.floor(inner / 160));
  const times = Array.from({ length: steps + 1 }, (_, i) => first + (i / steps) * (last - first));
  return html`<svg class="plot" width=${width} height=${HEIGHT} role="img" aria-label=${`${chart.title}; the table below has the numbers`} onPointerMove=${point} onPointerLeave=${() => onCursor(null)}>
    ${ticks.map((tick) => html`<g key=${tick}><line class="grid" x1=${BOX.left} x2=${width - BOX.right} y1=${y(tick)} y2=${y(tick)} /><text x=${BOX.left - 8} y=${y(tick) + 4} text-anchor="end">${count(tick)}</text></g>`)}
    ${times.map((time, index) => html`<text key=${index} x=${x(time)} y=${HEIGHT - 4} text-anchor=${index === 0 ? 'start' : index === steps ? 'end' : 'middle'}>${clockOf(time)}</text>`)}
    ${chart.series.map(([key], index) => html`<path key=${key} class=${TONES[index]} d=${line(at, table[key], x, y)} fill="none" stroke="currentColor" stroke-width="1.6" stroke-dasharray=${DASHES[index]} />`)}
    ${cursor !== null && html`<line class="cursor" x1=${x(at[cursor])} x2=${x(at[cursor])} y1=${BOX.top} y2=${HEIGHT - BOX.bottom} />`}
  </svg>`;
}

function Legend({ chart, table, index }) {
  return chart.series.map(
    ([key, label], i) => html`<span key=${key} class="legend"><svg class=${TONES[i]} width="22" height="6" aria-hidden="true"><line x1="0" y1="3" x2="22" y2="3" stroke="currentColor" stroke-width="2" stroke-dasharray=${DASHES[i]} /></svg>${label} <b>${round(table[key][index])}</b></span>`,
  );
}

function Charts({ table }) {
  const box = useRef(null);
  const width = useWidth(box);
  const [cursor, setCursor] = useState(null);
  const index = cursor !== null && cursor < table.at.length ? cursor : null;
  const shown = index ?? table.at.length - 1;
  return html`<div class="charts" ref=${box}>
    ${CHARTS.map((chart) => html`<figure key=${chart.title} class="chart">
      <figcaption><b>${chart.title}</b> <span class="dim">${chart.unit}</span> <${Legend} chart=${chart} table=${table} index=${shown} />
        <span class="push"></span><span class="dim">${index === null ? 'now' : clockOf(table.at[index])}</span></figcaption>
      ${width > 0 && html`<${Plot} chart=${chart} table=${table} width=${width} cursor=${index} onCursor=${setCursor} />`}
    </figure>`)}
  </div>`;
}

/** The same numbers for those who do not see the charts. */
function summarise(table) {
  return CHARTS.flatMap((chart) =>
    chart.series.map(([key, label]) => {
      const seen = table[key].filter((value) => value !== null);
      const known = seen.length > 0;
      return {
        key,
        name: `${chart.title}: ${label}`,
        now: round(seen.at(-1)),
        least: known ? round(Math.min(...seen)) : '–',
        most: known ? round(Math.max(...seen)) : '–',
      };
    }),
  );
}

export function Timeline() {
  useApp();
  const table = columns();
  const summary = summarise(table);
  useCopier(() => summary.map((row) => `${row.name}: ${row.now} (least ${row.least}, most ${row.most})`).join('\n'));
  if (table.at.length < 2) return html`<${Empty} title="Collecting …">The timeline begins when this page is opened, and keeps ten minutes.<//>`;
  const span = (table.at.at(-1) - table.at[0]) * 1e9;
  return html`<${Section} title="Timeline" note=${`the last ${duration(Math.round(span))} that this page has watched, ten minutes at most`}><${Charts} table=${table} /><//>
    <${Section} title="In numbers">
      <${Table} label="Timeline in numbers" head=${[['Series'], ['Now', 'num'], ['Least', 'num'], ['Most', 'num']]}>
        ${summary.map((row) => html`<tr key=${row.key} tabindex="-1" data-row=${row.key}><td>${row.name}</td><td class="num">${row.now}</td><td class="num">${row.least}</td><td class="num">${row.most}</td></tr>`)}
      <//>
    <//>`;
}
