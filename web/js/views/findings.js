// Findings: the answer, then what it rests on.

import { html, useState } from '/vendor/preact.js';
import { copy, findingText, heading } from '../copy.js';
import { clean, clock, count, duration, plural } from '../format.js';
import { WaitGraph } from '../graph.js';
import { link } from '../route.js';
import { Empty, Method, Place, Shape, StreamLink, Tag, TaskLink } from '../ui.js';
import { CONFIDENCE, kindText, kindWord } from '../words.js';

/** As many ids as one finding shows at once. */
const SHOWN = 24;

function Ids({ ids, total, what, Link }) {
  const [all, setAll] = useState(false);
  if (ids.length === 0) return null;
  const shown = all ? ids : ids.slice(0, SHOWN);
  return html`<p class="ids"><span class="dim">${what}</span>
    ${shown.map((id) => html`<${Link} key=${id} id=${id} />`)}
    ${shown.length < ids.length && html`<button type="button" class="text" onClick=${() => setAll(true)}>all ${count(ids.length)}</button>`}
    ${all && total > ids.length && html`<span class="dim">the worst ${ids.length} of ${count(total)}</span>`}
  </p>`;
}

function Concerned({ finding }) {
  const { tasks, streams, count: total } = finding;
  return html`<div class="concerned">
    <${Ids} ids=${tasks} total=${total} what=${tasks.length === 1 ? 'Task' : 'Tasks'} Link=${TaskLink} />
    <${Ids} ids=${streams} total=${total} what=${streams.length === 1 ? 'Stream' : 'Streams'} Link=${StreamLink} />
  </div>`;
}

function Finding({ finding }) {
  const [open, setOpen] = useState(false);
  const [sure, why] = CONFIDENCE[finding.confidence] ?? [finding.confidence];
  const { tasks, streams } = finding;
  const only = tasks.length === 1 && streams.length <= 1;
  const what = tasks.length > 0 ? 'tasks' : 'streams';
  return html`<li class=${`finding ${finding.severity}`}>
    <span class="kind"><${Shape} of=${finding.severity} /> ${kindWord(finding.kind)}</span>
    <div class="body">
      <h3 tabindex="-1" data-row=${finding.id}>${clean(finding.title)}</h3>
      <p class="where">
        ${finding.place && html`<${Place} at=${finding.place} />`}
        ${finding.method && html`<${Method} name=${finding.method} />`}
      </p>
      ${finding.evidence.map((sentence, index) => html`<p key=${index} class="evidence">${clean(sentence)}</p>`)}
      <${WaitGraph} edges=${finding.edges} />
      ${open && html`<${Concerned} finding=${finding} />`}
    </div>
    <div class="side">
      <span class="since">${duration(finding.since_ns)}</span>
      <span class="dim">${finding.severity} · <span title=${why}>${sure}</span>${finding.count > 1 ? ` · ${count(finding.count)}×` : ''}</span>
      <span class="buttons">
        ${only && html`<a class="button" href=${link('tasks', tasks[0])}>Show task</a>`}
        ${finding.kind === 'blocked_worker' && html`<a class="button" href=${link('blocked')}>Show stack</a>`}
        ${!only && tasks.length + streams.length > 0 &&
        html`<button type="button" aria-expanded=${String(open)} onClick=${() => setOpen(!open)}>${open ? `Hide ${what}` : `Show ${what}`}</button>`}
        <button type="button" onClick=${() => copy(heading() + findingText(finding))}>Copy as text</button>
      </span>
    </div>
  </li>`;
}

export function FindingList({ findings }) {
  return html`<ul class="findings">${findings.map((finding) => html`<${Finding} key=${finding.id} finding=${finding} />`)}</ul>`;
}

/** What was looked for, so that "nothing" has a meaning. */
function Checked({ report, open }) {
  const done = report.checked.filter((check) => !check.unavailable);
  const undone = report.checked.filter((check) => check.unavailable);
  return html`<details class="checked" open=${open}>
    <summary>Looked for ${plural(done.length, 'kind')} of trouble at ${clock(report.taken_at)}${undone.length > 0 ? `; ${count(undone.length)} could not be looked for` : ''}</summary>
    <ul>
      ${done.map((check) => html`<li key=${check.kind}><${Tag} tone="ok">looked<//> ${kindText(check.kind)} <span class="dim">among ${count(check.examined)}</span></li>`)}
      ${undone.map((check) => html`<li key=${check.kind}><${Tag} tone="warn">not looked<//> ${kindText(check.kind)} <span class="dim">${clean(check.unavailable)}</span></li>`)}
    </ul>
  </details>`;
}

/** The server sorts worst first, then longest. */
export function Findings({ report }) {
  if (!report) return html`<${Empty} title="Waiting for the first report …" />`;
  if (report.findings.length === 0) {
    return html`<div class="clear">
      <p><${Shape} of="ok" /> <b>Nothing found</b> at ${clock(report.taken_at)}.</p>
      <${Checked} report=${report} open />
    </div>`;
  }
  return html`<${FindingList} findings=${report.findings} /><${Checked} report=${report} />`;
}
