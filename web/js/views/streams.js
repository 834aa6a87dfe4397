// gRPC streams: a list, and one of them.

import { html, useState } from '/vendor/preact.js';
import { request } from '../api.js';
import { copy, heading, streamText } from '../copy.js';
import { useData } from '../data.js';
import { ago, bytes, clean, count, duration, plural } from '../format.js';
import { useCopier } from '../keys.js';
import { go, link } from '../route.js';
import { toast } from '../state.js';
import { Empty, Facts, Filter, Kept, Method, PAGE, Pager, Pending, Section, Shape, Sorts, StreamLink, Table, Tag, TaskLink, TaskRefs } from '../ui.js';
import { HTTP2, KIND_OF_STREAM, PHASE } from '../words.js';
import { FindingList } from './findings.js';

const FILTER_HINT = 'Watch phase:await_send wait:>10s';
const SORTS = [['wait', 'longest in phase'], ['id', 'oldest'], ['messages', 'most messages']];

const HEAD = [
  ['Stream', 'num'],
  ['Method'],
  ['Is now'],
  ['For', 'num', 'Time in this phase'],
  ['Age', 'num'],
  ['Received', 'num', 'Messages from the peer, and when the last bytes came'],
  ['Sent', 'num', 'Messages to the peer, and when the last bytes went'],
  ['Deadline', 'num', 'What is left of the caller’s deadline'],
  ['Peer'],
  ['Task', 'num'],
];

function PhaseTag({ stream }) {
  if (stream.status) {
    const ok = stream.status.code === 0;
    return html`<${Tag} tone=${ok ? 'dim' : 'warn'} title=${clean(stream.status.message)}>ended ${stream.status.name}<//>`;
  }
  if (stream.cancelled_ago_ns !== null && stream.cancelled_ago_ns !== undefined) {
    return html`<${Tag} tone="crit" title=${clean(stream.cancel_reason ?? '')}>cancelled<//>`;
  }
  const [word, tone, title] = PHASE[stream.phase] ?? [stream.phase, 'dim'];
  return html`<${Tag} tone=${tone} title=${title}>${word}<//>`;
}

function Messages({ traffic }) {
  return html`${count(traffic.messages)} <span class="dim">${ago(traffic.last_ago_ns)}</span>`;
}

function Remaining({ deadline }) {
  if (!deadline) return html`<span class="dim">none</span>`;
  if (deadline.remaining_ns >= 0) return duration(deadline.remaining_ns);
  return html`<span class="crit"><${Shape} of="critical" /> passed ${ago(-deadline.remaining_ns)}</span>`;
}

export function StreamTable({ answer, filter = '' }) {
  if (answer.streams.length === 0) {
    return html`<${Empty} title=${filter ? 'No stream fits this filter.' : 'No gRPC stream is open.'}>
      ${filter ? null : 'Streams are seen where the gRPC layer is installed; calls made or answered without it are not.'}
    <//>`;
  }
  return html`<${Table} label="Streams" head=${HEAD}>
    ${answer.streams.map(
      (stream) => html`<tr key=${stream.id}>
        <td class="num"><${StreamLink} id=${stream.id} row /></td>
        <td><${Method} name=${stream.method} /> <span class="dim">${stream.side}${stream.kind === 'unknown' ? '' : `, ${KIND_OF_STREAM[stream.kind]}`}</span></td>
        <td><${PhaseTag} stream=${stream} /></td>
        <td class="num">${duration(stream.phase_ns)}</td>
        <td class="num">${duration(stream.age_ns)}</td>
        <td class="num"><${Messages} traffic=${stream.received} /></td>
        <td class="num"><${Messages} traffic=${stream.sent} /></td>
        <td class="num"><${Remaining} deadline=${stream.deadline} /></td>
        <td><bdi>${stream.peer ? clean(stream.peer) : html`<span class="dim">–</span>`}</bdi></td>
        <td class="num"><${TaskLink} id=${stream.task} /></td>
      </tr>`,
    )}
  <//>`;
}

export function Streams({ params }) {
  const { filter = '', sort = 'wait', cursor = '' } = params;
  const answer = useData('/debug/streams', { filter, sort, limit: PAGE, cursor });
  const connections = useData('/debug/connections');
  const { data } = answer;
  const rows = data?.streams ?? [];
  const text = (row) => heading(data?.taken_at) + rows.filter((one) => row === null || one.id === row).map(streamText).join('\n');
  useCopier((row) => data && text(row));
  const change = (patch) => go(link('streams', null, { ...params, cursor: null, ...patch }), { replace: true });
  return html`
    <${Section} title="gRPC streams"
      actions=${html`<${Filter} value=${filter} placeholder=${FILTER_HINT} onInput=${(text) => change({ filter: text })} />
        <${Sorts} options=${SORTS} value=${sort} onPick=${(key) => change({ sort: key })} />
        <button type="button" disabled=${!data} onClick=${() => copy(text(null))}>Copy as text</button>`}>
      <${Pending} ...${answer} what="the streams" />
      <${Kept} ...${answer} />
      ${data && html`<${StreamTable} answer=${data} filter=${filter} />
        <${Pager} view="streams" params=${params} shown=${rows.length} total=${data.matched} next=${data.next_cursor} noun="streams" />`}
    <//>
    <${Section} title="Connections">
      <${Pending} ...${connections} what="the connections" />
      ${connections.data && html`<${Connections} connections=${connections.data.connections} />`}
    <//>`;
}

const HEAD_CONNECTIONS = [
  ['Connection', 'num'],
  ['Peer'],
  ['Side'],
  ['Age', 'num'],
  ['Open streams', 'num'],
  ['Ever', 'num', 'Streams ever started on it'],
  ['Read', 'num'],
  ['Written', 'num'],
  ['Write blocked', 'num', 'For how long the socket has refused bytes'],
];

/** As many connections as the page shows; the rest is counted. */
const CONNECTIONS = 100;

function Connections({ connections }) {
  if (connections.length === 0) return html`<${Empty} title="No connection is open." />`;
  return html`<${Table} label="Connections" head=${HEAD_CONNECTIONS}>
      ${connections.slice(0, CONNECTIONS).map(({ counters, ...connection }) => html`<tr key=${connection.id}>
        <td class="num">${connection.id}</td>
        <td><bdi>${connection.peer ? clean(connection.peer) : html`<span class="dim">–</span>`}</bdi></td>
        <td>${connection.side}</td>
        <td class="num">${duration(connection.age_ns)}</td>
        <td class="num">${count(connection.streams)}</td>
        <td class="num">${count(connection.streams_total)}</td>
        <td class="num">${bytes(counters?.read_bytes)}</td>
        <td class="num">${bytes(counters?.written_bytes)}</td>
        <td class="num">${counters?.write_blocked_ns > 0 ? html`<span class="warn"><${Shape} of="warning" /> ${duration(counters.write_blocked_ns)}</span>` : counters ? 'no' : '–'}</td>
      </tr>`)}
    <//>
    ${connections.length > CONNECTIONS && html`<p class="pager">${CONNECTIONS} of ${count(connections.length)} connections</p>`}`;
}

/** Logs each Send and Recv of a live stream, or stops it. */
function LogButton({ stream }) {
  const [on, setOn] = useState(stream.logged);
  const click = () =>
    request('/debug/log', { method: 'POST', params: { stream: stream.id, on: !on } }).then(
      () => (setOn(!on), toast(on ? 'Not logged any more' : 'Each Send and Recv is logged by the process, target taskprof::stream')),
      (error) => toast(error.status === 404 ? 'This server does not allow it' : error.message),
    );
  return html`<button type="button" aria-pressed=${String(on)} title="As tracing events of the process" onClick=${click}>Log Send and Recv</button>`;
}

export function Stream({ id }) {
  const answer = useData(`/debug/streams/${encodeURIComponent(id)}`);
  const { data, error } = answer;
  const stream = data?.stream;
  useCopier(() => stream && heading(data.taken_at) + streamText(stream));
  if (error?.status === 404 && !data) {
    return html`<${Empty} title=${`Stream ${clean(id)} is not known any more.`}>Ended streams are kept in a bounded ring. <a href=${link('streams')}>All streams</a><//>`;
  }
  if (!stream) return html`<${Pending} ...${answer} what=${`stream ${clean(id)}`} />`;
  const [word, , meaning] = PHASE[stream.phase] ?? [stream.phase];
  const direction = (traffic) =>
    `${plural(traffic.messages, 'message')}, ${bytes(traffic.bytes)}, last ${ago(traffic.last_ago_ns)}${traffic.ended ? ', ended' : ''}`;
  return html`
    <${Kept} ...${answer} />
    <${Section} title=${`Stream ${stream.id}`} note=${html`<${PhaseTag} stream=${stream} /> for ${duration(stream.phase_ns)}`}
      actions=${html`<a class="button" href=${link('streams')}>All streams</a> ${!stream.status && html`<${LogButton} stream=${stream} /> `}<button type="button" onClick=${() => copy(heading(data.taken_at) + streamText(stream))}>Copy as text</button>`}>
      ${!stream.status && meaning && html`<p class="where">${word}: ${meaning}.</p>`}
      <${Facts} of=${[
        ['Method', html`<${Method} name=${stream.method} />`],
        ['Kind', KIND_OF_STREAM[stream.kind] ?? stream.kind],
        ['We are the', stream.side],
        ['HTTP/2 state', HTTP2[stream.state] ?? stream.state],
        ['Peer', stream.peer && html`<bdi>${clean(stream.peer)}</bdi>`],
        ['Connection', stream.connection],
        ['Task', html`<${TaskLink} id=${stream.task} />`],
        ['Live tasks', count(stream.live_tasks), 'Tasks that it caused and that are alive'],
        ['Age', duration(stream.age_ns)],
        ['Received', direction(stream.received)],
        ['Sent', direction(stream.sent)],
        ['Deadline', stream.deadline ? html`<${Remaining} deadline=${stream.deadline} /> of ${duration(stream.deadline.timeout_ns)}` : 'none set by the caller'],
        ['Cancelled', stream.cancelled_ago_ns === null ? null : `${ago(stream.cancelled_ago_ns)}${stream.cancel_reason ? `: ${clean(stream.cancel_reason)}` : ''}`],
        ['Status', stream.status && `${stream.status.code} ${stream.status.name}${stream.status.message ? `: ${clean(stream.status.message)}` : ''}`],
        ['Ended', stream.ended_ago_ns === null ? null : ago(stream.ended_ago_ns)],
        ['Logged', stream.logged ? 'each Send and Recv' : 'no'],
      ]} />
    <//>
    ${data.findings.length > 0 && html`<${Section} title="Findings that name it"><${FindingList} findings=${data.findings} /><//>`}
    <${Section} title="Tasks it caused" note=${plural(data.tasks_total, 'live task')}>
      ${data.tasks.length > 0 ? html`<${TaskRefs} tasks=${data.tasks} total=${data.tasks_total} />` : html`<${Empty} title="None alive." />`}
    <//>
    ${data.connection && html`<${Section} title="Its connection"><${Connections} connections=${[data.connection]} /><//>`}
    ${Object.keys(stream.metadata).length > 0 && html`<${Section} title="Metadata" note="allow-listed keys only">
      <${Facts} of=${Object.entries(stream.metadata).map(([key, value]) => [clean(key), html`<bdi>${clean(value)}</bdi>`])} />
    <//>`}`;
}
