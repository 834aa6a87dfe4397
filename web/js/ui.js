// Small parts that several views share.

import { html, useEffect, useRef, useState } from '/vendor/preact.js';
import { clean, count, duration, place, plural } from './format.js';
import { waitOf } from './groups.js';
import { link } from './route.js';
import { TASK_STATE } from './words.js';

/** A shape for each severity, so that colour is never the only sign. */
const SHAPES = {
  critical: 'M4.7 1h6.6L15 4.7v6.6L11.3 15H4.7L1 11.3V4.7z',
  warning: 'M8 1.5 15.5 14.5H.5z',
  info: 'M8 1.5a6.5 6.5 0 1 0 .01 0z',
  ok: 'M2 8.6 6.2 13 14 3.6l-1.7-1.4-6.2 7.6-2.6-2.7z',
};

export function Shape({ of }) {
  return html`<svg class=${`shape ${of}`} viewBox="0 0 16 16" width="12" height="12" aria-hidden="true"><path fill="currentColor" d=${SHAPES[of] ?? SHAPES.info} /></svg>`;
}

/** A word with a tone: `ok`, `warn`, `crit`, `dim`. */
export function Tag({ tone = 'dim', title, children }) {
  return html`<span class=${`tag ${tone}`} title=${title}>${children}</span>`;
}

export function TaskState({ state, worker, wait }) {
  const [word, tone, title] = TASK_STATE[state] ?? [state, 'dim'];
  if (wait && state !== 'running') return html`<${Tag} title=${title}>${wait}<//>`;
  return html`<${Tag} tone=${tone} title=${title}>${word}${worker === null || worker === undefined ? '' : ` on ${worker}`}<//>`;
}

/** `file:line`; the whole path on hover. */
export function Place({ at }) {
  if (!at) return null;
  const whole = typeof at === 'string' ? at : `${at.file}:${at.line}:${at.column}`;
  return html`<code class="place" title=${clean(whole)}><bdi>${place(at)}</bdi></code>`;
}

/** A gRPC method: the service dim, the name plain. */
export function Method({ name }) {
  if (!name) return html`<span class="dim">–</span>`;
  const text = clean(name);
  const cut = text.lastIndexOf('/') + 1;
  return html`<span class="method" title=${text}><span class="dim">${text.slice(0, cut)}</span><bdi>${text.slice(cut)}</bdi></span>`;
}

export function TaskLink({ id, row = false }) {
  if (id === null || id === undefined) return html`<span class="dim">–</span>`;
  return html`<a href=${link('tasks', id)} data-row=${row ? id : undefined}>${id}</a>`;
}

export function StreamLink({ id, row = false }) {
  if (id === null || id === undefined) return html`<span class="dim">–</span>`;
  return html`<a href=${link('streams', id)} data-row=${row ? id : undefined}>${id}</a>`;
}

/** A heading with what belongs beside it. */
export function Section({ title, note, actions, children, level = 2 }) {
  return html`<section class="section">
    <header>
      <${`h${level}`}>${title}<//>
      ${note && html`<span class="note">${note}</span>`}
      ${actions && html`<div class="acts">${actions}</div>`}
    </header>
    ${children}
  </section>`;
}

/** A table that scrolls sideways by itself in a narrow window. */
export function Table({ label, head, children }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label}>
    <table>
      <thead><tr>${head.map(([text, kind, title]) => html`<th class=${kind} scope="col" title=${title}>${text}</th>`)}</tr></thead>
      <tbody>${children}</tbody>
    </table>
  </div>`;
}

/** What stands in place of data: loading, an error, or nothing to show. */
export function Empty({ title, children, tone = 'dim' }) {
  return html`<div class=${`empty ${tone}`} role=${tone === 'crit' ? 'alert' : undefined}>
    <p>${title}</p>
    ${children && html`<p class="dim">${children}</p>`}
  </div>`;
}

/** Loading or failed; null once there are data. */
export function Pending({ data, error, what }) {
  if (data) return null;
  if (error) return html`<${Empty} tone="crit" title=${`Could not load ${what}.`}>${clean(error.message)}<//>`;
  return html`<${Empty} title=${`Loading ${what} …`} />`;
}

/** A failed refresh above data that are kept. */
export function Kept({ data, error }) {
  if (!data || !error) return null;
  return html`<p class="banner warn"><${Shape} of="warning" /> Not refreshed: ${clean(error.message)} What is shown was taken before.</p>`;
}

/** What an answer does not cover: said before its numbers are believed. */
export function CoverageNote({ coverage }) {
  if (!coverage) return null;
  const missing = coverage.missing.filter((item) => item.count > 0 || item.reason === 'no_tokio_unstable');
  if (missing.length === 0 && coverage.dropped === 0) return null;
  return html`<details class="coverage">
    <summary>Covers ${count(coverage.listed)} of ${count(coverage.alive)} live tasks, ${count(coverage.with_stack)} with a stack</summary>
    <ul>
      ${missing.map((item) => html`<li key=${item.detail}><b>${count(item.count)}</b> ${item.reason.replaceAll('_', ' ')} <span class="dim">${clean(item.detail)}</span></li>`)}
      ${coverage.dropped > 0 && html`<li><b>${count(coverage.dropped)}</b> kept out by a bound since the start</li>`}
    </ul>
  </details>`;
}

/** Neither hooks nor memory show the tasks: that is not the same as none. */
export const unattached = (coverage) =>
  coverage?.missing.some((item) => item.reason === 'no_tokio_unstable' && item.count > 0) ?? false;

/** More frames in a row that are not the program's own are folded. */
const FOLD = 2;

/** Frames, and numbers of frames that are folded. */
function folded(frames) {
  const rows = [];
  for (let at = 0; at < frames.length; ) {
    let end = at;
    while (end < frames.length && frames[end].kind !== 'user') end += 1;
    // Innermost is what it waits in, or what blocks it.
    const shown = at === 0 ? 1 : 0;
    if (end - at - shown > FOLD) {
      if (shown) rows.push([0, frames[0]]);
      rows.push([end - at - shown, null]);
    } else for (let n = at; n < end; n += 1) rows.push([n, frames[n]]);
    if (end < frames.length) rows.push([end, frames[end]]);
    at = end + 1;
  }
  return rows;
}

/** A stack: the program's own frames stand out. */
export function Stack({ stack, missing, title }) {
  const [all, setAll] = useState(false);
  if (!stack || stack.frames.length === 0) {
    return html`<p class="dim">No stack${missing ? `: ${clean(missing)}` : stack?.truncated ? `: ${clean(stack.truncated)}` : ''}.</p>`;
  }
  const rows = all ? stack.frames.map((frame, index) => [index, frame]) : folded(stack.frames);
  return html`<div class="stack">
    <p class="note">${title ?? (stack.source === 'native' ? 'Native stack of its thread' : 'Await chain')}, innermost first</p>
    <ol>
      ${rows.map(([n, frame]) =>
        frame
          ? html`<li key=${n} class=${frame.kind} title=${clean(frame.function_full)}><span class="n">${n + 1}</span>
          <code class="fn"><bdi>${clean(frame.function)}</bdi></code>
          ${frame.location && html` <${Place} at=${frame.location} />`}
          ${frame.inlined && html` <span class="dim">inlined</span>`}
        </li>`
          : html`<li><span class="n">⋮</span><button type="button" class="text" onClick=${() => setAll(true)}>${plural(n, 'frame')} of libraries and runtime</button></li>`,
      )}
    </ol>
    ${stack.or_one_of?.length > 0 && html`<p class="dim">Or one of, as their code is the same: <bdi>${clean(stack.or_one_of.join(', '))}</bdi></p>`}
    ${stack.truncated && html`<p class="dim">… ${clean(stack.truncated)}</p>`}
  </div>`;
}

/** Terms and their values, side by side. */
export function Facts({ of }) {
  return html`<dl class="facts">
    ${of.filter(([, value]) => value !== undefined).map(([term, value, title]) => html`<div key=${term} title=${title}><dt>${term}</dt><dd>${value ?? html`<span class="dim">–</span>`}</dd></div>`)}
  </dl>`;
}

/** A filter box that writes into the hash once typing rests. */
export function Filter({ value, placeholder, onInput }) {
  // What is typed is kept apart from the hash: a refresh must not undo it.
  const [text, setText] = useState(value);
  const told = useRef(value);
  const timer = useRef(null);
  useEffect(() => {
    if (value !== told.current) setText((told.current = value));
    return () => clearTimeout(timer.current);
  }, [value]);
  const typed = (event) => {
    const now = event.currentTarget.value;
    setText(now);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => onInput((told.current = now.trim())), 250);
  };
  return html`<label class="filter"><span>Filter</span>
    <input id="filter" type="search" autocomplete="off" spellcheck=${false} placeholder=${placeholder} value=${text} onInput=${typed} />
    <kbd>/</kbd></label>`;
}

/** One of several, as buttons. */
export function Choice({ label, options, value, onPick }) {
  return html`<div class="choice" role="group" aria-label=${label}>
    ${options.map(([key, text]) => html`<button key=${key} type="button" aria-pressed=${String(key === value)} onClick=${() => onPick(key)}>${text}</button>`)}
  </div>`;
}

/** In which order a list comes. */
export function Sorts({ options, value, onPick }) {
  return html`<label class="sort"><span>Sort</span>
    <select value=${value} onChange=${(event) => onPick(event.currentTarget.value)}>
      ${options.map(([key, label]) => html`<option key=${key} value=${key} selected=${key === value}>${label}</option>`)}
    </select></label>`;
}

/** Rows of one page. */
export const PAGE = 200;

export function Pager({ view, params, shown, total, next, noun }) {
  const first = !params.cursor;
  return html`<p class="pager">
    <span>${count(shown)}${total === undefined || total === null ? '' : ` of ${count(total)}`} ${noun}</span>
    ${!first && html`<a class="button" href=${link(view, null, { ...params, cursor: null })}>First page</a>`}
    ${next && html`<a class="button" href=${link(view, null, { ...params, cursor: next })}>Next page</a>`}
  </p>`;
}

const HEAD_REFS = [['Task', 'num'], ['State'], ['For', 'num', 'Time in this state'], ['Spawned at'], ['Method']];

/** Of tasks named briefly, as many as the page shows; the rest is counted. */
const SHOWN_REFS = 100;

/** Tasks by their most telling facts: parents, children, those of a stream. */
export function TaskRefs({ tasks, total = tasks.length }) {
  if (total === 0) return html`<${Empty} title="None alive." />`;
  return html`<${Table} label="Tasks" head=${HEAD_REFS}>
      ${tasks.slice(0, SHOWN_REFS).map((task) => html`<tr key=${task.id}>
        <td class="num"><${TaskLink} id=${task.id} row /></td>
        <td><${TaskState} state=${task.state} wait=${waitOf(task)} /></td>
        <td class="num">${duration(task.state_ns)}</td>
        <td>${task.spawned_at ? html`<${Place} at=${task.spawned_at} />` : html`<span class="dim">not known</span>`}</td>
        <td><${Method} name=${task.method} /></td>
      </tr>`)}
    <//>
    ${total > SHOWN_REFS && html`<p class="pager">The oldest ${SHOWN_REFS} of ${count(total)}</p>`}`;
}

/** The width of an element, followed. */
export function useWidth(box) {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.floor(entry.contentRect.width)));
    observer.observe(box.current);
    return () => observer.disconnect();
  }, []);
  return width;
}
