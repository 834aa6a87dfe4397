// What surrounds the views: above, which process, how fresh, what can be done;
// over them, the keys and the question for the token.

import { html, useEffect, useRef, useState } from '/vendor/preact.js';
import { download, setToken } from './api.js';
import { clean, count, duration, fileName } from './format.js';
import { HELP } from './keys.js';
import { isPaused, pause, reconnect } from './live.js';
import { VIEWS, link, useRoute } from './route.js';
import { set, state, toast, useApp, useClock } from './state.js';
import { Shape } from './ui.js';

/** Data older than this, and than three of the usual gaps, are called stale. */
const STALE_MS = 5_000;

const seconds = (ms) => (ms < 1e4 ? `${(Math.max(0, ms) / 1e3).toFixed(1)}s` : duration(Math.round(ms) * 1e6));

/** `[tone, shape, word, detail]` of the connection now. */
function freshness(now) {
  const age = state.heardAt === null ? null : seconds(now - state.heardAt);
  const kept = age === null ? '' : `data ${age} old`;
  switch (state.connection) {
    case 'live':
      return now - state.heardAt > Math.max(STALE_MS, 3 * state.gap)
        ? ['warn', 'warning', 'Stale', `nothing heard for ${age}`]
        : ['ok', 'ok', 'Live', `${age} ago`];
    case 'paused':
      return ['dim', 'info', 'Paused', kept];
    case 'hidden':
      return ['dim', 'info', 'Asleep', 'the tab was hidden'];
    case 'limited':
      return ['warn', 'warning', 'Asked to wait', kept];
    case 'disconnected':
      return ['crit', 'critical', 'Disconnected', kept];
    case 'unauthorized':
      return ['warn', 'warning', 'Signed out', kept];
    default:
      return ['dim', 'info', 'Connecting', kept];
  }
}

function Freshness() {
  const now = useClock(500);
  const [tone, shape, word, detail] = freshness(now);
  return html`<span class=${`fresh ${tone}`}>
    <${Shape} of=${shape} /> <b role="status">${word}</b> <span class="age">${detail}</span>
  </span>`;
}

function Retry() {
  const now = useClock(250);
  if (state.retryAt === null) return null;
  return html`<span>Next attempt in ${seconds(state.retryAt - now)}. <button type="button" onClick=${reconnect}>Try now</button></span>`;
}

/** A download with its name, and that it is under way. */
function Download({ label, title, path, params, ending }) {
  const [busy, setBusy] = useState(false);
  const click = async () => {
    setBusy(true);
    try {
      await download(path, params, fileName(state.process, ending));
      toast(`Saved: ${label}`);
    } catch (error) {
      toast(`${label}: ${error.message}`);
    }
    setBusy(false);
  };
  return html`<button type="button" title=${title} disabled=${busy} onClick=${click}>${busy ? `${label} …` : label}</button>`;
}

function Downloads() {
  return html`<details class="menu">
    <summary>Download</summary>
    <div>
      <${Download} label="Snapshot (JSON)" title="Everything known now, for taskprof diff and Compare" path="/debug/snapshot" ending=".snapshot.json" />
      <${Download} label="Tasks, pprof" title="For go tool pprof" path="/debug/pprof/goroutine" ending=".goroutine.pb.gz" />
      <${Download} label="Tasks, text" title="Every task, as Go's debug=2" path="/debug/pprof/goroutine" params=${{ debug: 2 }} ending=".goroutine.txt" />
      <${Download} label="CPU profile, 10 s" title="Samples the process for ten seconds" path="/debug/pprof/profile" params=${{ seconds: 10 }} ending=".cpu.pb.gz" />
    </div>
  </details>`;
}

function badge(view) {
  const { counters, report } = state;
  if (view === 'tasks' && counters) return count(counters.coverage.alive);
  if (view === 'streams' && counters) return count(counters.streams);
  if (view === 'blocked' && counters?.workers_blocked > 0) return count(counters.workers_blocked);
  if (view === 'overview') return report?.findings.length > 0 ? count(report.findings.length) : null;
  return null;
}

function Tabs() {
  const { view } = useRoute();
  return html`<nav aria-label="Views">
    ${VIEWS.map(([name, label], index) => {
      const number = badge(name);
      const tone = name === 'overview' || name === 'blocked' ? 'crit' : '';
      return html`<a key=${name} href=${link(name)} aria-current=${name === view ? 'page' : undefined} title=${`Key ${index + 1}`}>
        ${label}${number !== null && html` <span class=${`number ${tone}`}>${number}</span>`}
      </a>`;
    })}
  </nav>`;
}

/** Light, dark, or as the system says; remembered in this browser. */
const THEME = 'taskprof.theme';
const THEMES = ['auto', 'light', 'dark'];

function currentTheme() {
  const kept = localStorage.getItem(THEME);
  return THEMES.includes(kept) ? kept : 'auto';
}

function apply(theme) {
  document.documentElement.dataset.theme = theme;
}

/** Goes to the next theme and names it. */
function nextTheme() {
  const theme = THEMES[(THEMES.indexOf(currentTheme()) + 1) % THEMES.length];
  localStorage.setItem(THEME, theme);
  apply(theme);
  return theme;
}

export const startTheme = () => apply(currentTheme());

export function Header() {
  const { process, replaced, connection, trouble } = useApp();
  const [theme, setTheme] = useState(currentTheme());
  return html`<header class="top">
    <div class="bar">
      <h1>${process ? clean(process.name) : 'taskprof'}</h1>
      ${process && html`<span class="who">pid <b>${process.pid}</b> <span title="Since the profiler started">up <b>${duration(process.uptime_ns)}</b></span></span>`}
      <${Freshness} />
      <span class="push"></span>
      <button type="button" aria-pressed=${String(isPaused())} title="Key Space" onClick=${() => pause(!isPaused())}>${isPaused() ? 'Go on' : 'Pause'}</button>
      <${Downloads} />
      <button type="button" title="Colours: as the system, light, dark" onClick=${() => setTheme(nextTheme())}>Theme: ${theme}</button>
      <button type="button" title="Key ?" aria-label="Help" onClick=${() => set({ help: true })}>?</button>
    </div>
    <${Tabs} />
    ${(connection === 'disconnected' || connection === 'limited') &&
    html`<p class="banner crit" role="alert"><${Shape} of="critical" /> <span>${clean(trouble ?? '')} What is shown below is the last that was heard.</span> <${Retry} /></p>`}
    ${replaced &&
    html`<p class="banner warn" role="alert"><${Shape} of="warning" /> <span>This is a new process: pid ${replaced.before.pid} is gone, pid ${process.pid} answers since ${replaced.at.toLocaleTimeString('en-GB')}. Ids and counters begin anew.</span>
      <button type="button" onClick=${() => set({ replaced: null })}>Understood</button></p>`}
  </header>`;
}

function Dialog({ title, onClose, children }) {
  const dialog = useRef(null);
  useEffect(() => {
    dialog.current.showModal();
    return () => dialog.current?.close();
  }, []);
  return html`<dialog ref=${dialog} aria-label=${title} onCancel=${(event) => (event.preventDefault(), onClose?.())}>
    <h2>${title}</h2>
    ${children}
  </dialog>`;
}

export function Help() {
  const { help } = useApp();
  if (!help) return null;
  const close = () => set({ help: false });
  return html`<${Dialog} title="Keys" onClose=${close}>
    <dl class="keys">
      ${HELP.map(([key, text]) => html`<div key=${key}><dt>${key.split('  ').map((one) => html`<kbd>${one}</kbd> `)}</dt><dd>${text}</dd></div>`)}
    </dl>
    <p class="actions"><button type="button" onClick=${close}>Close</button></p>
  <//>`;
}

export function SignIn() {
  const { connection, trouble } = useApp();
  const [value, setValue] = useState('');
  if (connection !== 'unauthorized') return null;
  const submit = (event) => {
    event.preventDefault();
    setToken(value.trim());
    setValue('');
    set({ connection: 'connecting', trouble: null });
    reconnect();
  };
  return html`<${Dialog} title="Token">
    <form onSubmit=${submit}>
      <p>This server answers only with its token. It is kept for this tab and sent in a header, never in an address.</p>
      ${trouble && html`<p class="banner crit" role="alert">${trouble}</p>`}
      <label class="token">Token <input type="password" name="token" autocomplete="off" required value=${value} onInput=${(event) => setValue(event.currentTarget.value)} /></label>
      <p class="actions"><button type="submit" class="primary">Sign in</button></p>
    </form>
  <//>`;
}
