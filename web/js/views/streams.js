// gRPC streams: a list, and one of them.

import { html, useRef, useState } from '/vendor/preact.js';
import { request } from '../api.js';
import { copy, heading, streamText } from '../copy.js';
import { useData } from '../live.js';
import { ago, bytes, clean, count, duration, plural } from '../format.js';
import { useCopier } from '../keys.js';
import { go, link } from '../route.js';
import { toast } from '../state.js';
import { Empty, Facts, Filter, Kept, Method, PAGE, Pager, Pending, Section, Shape, Sorts, StreamLink, Table, Tag, TaskLink, TaskRefs, useWidth } from '../ui.js';
import { HTTP2, KIND_OF_STREAM, PHASE } from '../words.js';
import { FindingList } from './findings.js';

const CALM = { healthy: 'ok', idle_by_design: 'dim', waiting_for_peer: 'dim' };
const GRAVE = ['worker_blocked', 'peer_frozen', 'network'];
const WHO = { us: '· us', peer: '· the peer', network: '· the network', unknown: '· who?' };

const words = (kind) => kind.replaceAll('_', ' ');
const isAlarm = (kind) => !(kind in CALM);

/** The verdict in two words, who, and how sure. */
function Judged({ verdict, sure = false }) {
  if (!verdict) return html`<span class="dim">–</span>`;
  const { kind, who, confidence, evidence } = verdict;
  const tone = CALM[kind] ?? (GRAVE.includes(kind) ? 'crit' : 'warn');
  return html`<span title=${clean(evidence)}>${isAlarm(kind) && html`<${Shape} of=${tone === 'crit' ? 'critical' : 'warning'} /> `}<${Tag} tone=${tone}>${words(kind)}<//>${WHO[who] && html` <span class="dim">${WHO[who]}${sure ? `, ${confidence}` : ''}</span>`}</span>`;
}

/** The reason, what else it may be, and whom to look at. */
function Reason({ verdict }) {
  const { or, told_apart_by: by, hog, evidence } = verdict;
  return html`<p class="where">${clean(evidence)}</p>
    ${or.length > 0 && html`<p class="where dim">From here it could as well be ${or.map(words).join(' or ')}. What would tell: ${clean(by)}.</p>`}
    ${hog && html`<p class="where">Used up by stream <${StreamLink} id=${hog} /></p>`}`;
}

/** The largest window seen of each: a connection's has no size of its own. */
const most = new Map();

/** What is left of a window. */
function Window({ name, left, size = 65_535, closed }) {
  const full = Math.max(left, size, most.get(name) ?? 0);
  if (most.size > 999) most.clear();
  most.set(name, full);
  return html`<span class=${left > 0 ? 'win' : 'win crit'} title=${`${bytes(Math.max(0, left))} left of ${bytes(full)}`}>
    <svg width="64" height="10" aria-hidden="true"><rect class="used" width="64" height="10" /><rect width=${(64 * Math.max(0, left)) / full} height="10" /></svg>
    ${left > 0 ? bytes(left) : `closed${closed ? ` ${duration(closed)}` : ''}`}</span>`;
}

const NONE = html`<span class="dim">–</span>`;

/** Both windows of a connection or a stream; `initial` is what one began with. */
function windows({ id, of, initial = [] }) {
  if (!of) return [NONE, NONE];
  return ['send', 'recv'].map((way, at) => html`<${Window} name=${id + way} left=${of[`${way}_window`]} size=${initial[at]} closed=${of[`${way}_window_closed_ns`]} />`);
}

function Ping({ of, beat }) {
  const late = of?.ping_outstanding_ns;
  return html`${late > 1e9 ? html`<span class="crit"><${Shape} of="critical" /> none for ${duration(late)}</span>` : duration(of?.ping_rtt_ns)}${beat?.outstanding_ns > 1e9 && html` <span class="warn">heartbeat late ${duration(beat.outstanding_ns)}</span>`}`;
}

function Tcp({ of }) {
  if (!of) return NONE;
  const parts = [`rtt ${duration(of.rtt_ns)}`, of.unacked && `${of.unacked} unacked`, of.notsent_bytes && `${bytes(of.notsent_bytes)} unsent`, of.retransmits && `${of.retransmits} retransmits`, of.unread_bytes && `${bytes(of.unread_bytes)} unread`];
  return html`<span class=${of.retransmits > 1 ? 'crit' : ''} title=${`last ACK ${ago(of.last_ack_ago_ns)}, windows ${bytes(of.send_window)} and ${bytes(of.recv_window)}, ${count(of.total_retransmits)} retransmits ever`}>${parts.filter(Boolean).join(', ')}</span>`;
}

const LANES = ['Sent', 'Windows', 'Received'];
/** Of each kind of event: its lane, its tone, what it says. */
const EVENTS = {
  send: [0, 'link', 'sent'],
  end_sent: [0, 'dim', 'our end'],
  window_received: [1, 'ok', 'window from peer'],
  window_sent: [1, 'link', 'window to peer'],
  window_closed: [1, 'crit', 'window closed'],
  recv: [2, 'link', 'received'],
  end_received: [2, 'dim', 'peer’s end'],
  reset: [2, 'crit', 'reset'],
};
const LEFT = 70;
const LANE = 24;
/** Rows of the list below the line. */
const ROWS = 32;

function Events({ events, logged }) {
  const box = useRef(null);
  const width = useWidth(box);
  const span = Math.max(1e9, ...events.map((event) => event.ago_ns)) * 1.04;
  const inner = Math.max(0, width - LEFT - 24);
  const x = (ns) => LEFT + inner * (1 - ns / span);
  const last = events.slice(-ROWS).reverse();
  return html`<${Section} title="Timeline" note=${`last ${events.length} events${logged ? ', logged' : ''}`}>
    <div class="chart" ref=${box}>
      ${width > 0 && html`<svg class="plot" width=${width} height=${LANE * 3 + 20} role="img" aria-label="Events; the table below has them">
        ${LANES.map((lane, at) => html`<g key=${lane}><text x="0" y=${at * LANE + 16}>${lane}</text><line class="grid" x1=${LEFT} x2=${LEFT + inner} y1=${at * LANE + 22} y2=${at * LANE + 22} /></g>`)}
        ${[1, 0.5, 0].map((part) => html`<text key=${part} x=${x(span * part)} y=${LANE * 3 + 16} text-anchor=${part ? 'start' : 'end'}>${part ? ago(Math.round(span * part)) : 'now'}</text>`)}
        ${events.map((event, at) => {
          const [lane, tone, word] = EVENTS[event.kind] ?? [1, 'dim', event.kind];
          const height = Math.min(20, 6 + Math.log2(event.bytes + 1) * 0.7);
          return html`<rect key=${at} class=${tone} fill="currentColor" x=${x(event.ago_ns) - 1} y=${lane * LANE + 22 - height} width="3" height=${height}><title>${word} ${event.bytes ? bytes(event.bytes) : ''} ${ago(event.ago_ns)}</title></rect>`;
        })}
      </svg>`}
    </div>
    <${Table} label="Events" head=${[['What'], ['Size'], ['When']]}>
      ${last.map((event, at) => html`<tr key=${at}><td><${Tag} tone=${EVENTS[event.kind]?.[1]}>${EVENTS[event.kind]?.[2] ?? event.kind}<//></td><td>${event.bytes ? bytes(event.bytes) : ''}</td><td>${ago(event.ago_ns)}</td></tr>`)}
    <//>
  <//>`;
}

const FILTER_HINT = 'Watch is:alarm wait:>10s';
const SORTS = [['verdict', 'worst verdict'], ['wait', 'longest in phase'], ['id', 'oldest'], ['messages', 'most messages']];

const HEAD = [
  ['Stream', 'num'],
  ['Method'],
  ['Verdict'],
  ['For', 'num'],
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
        <td><${Judged} verdict=${stream.verdict} /></td>
        <td class="num">${duration(stream.verdict?.since_ns)}</td>
        <td><${PhaseTag} stream=${stream} /></td>
        <td class="num">${duration(stream.phase_ns)}</td>
        <td class="num">${duration(stream.age_ns)}</td>
        <td class="num"><${Messages} traffic=${stream.received} /></td>
        <td class="num"><${Messages} traffic=${stream.sent} /></td>
        <td class="num"><${Remaining} deadline=${stream.deadline} /></td>
        <td><bdi>${stream.peer ? clean(stream.peer) : NONE}</bdi></td>
        <td class="num"><${TaskLink} id=${stream.task} /></td>
      </tr>
      ${stream.verdict && isAlarm(stream.verdict.kind) && html`<tr class="why"><td></td><td colspan=${HEAD.length - 1}><p>${clean(stream.verdict.evidence)}</p></td></tr>`}`,
    )}
  <//>`;
}

export function Streams({ params }) {
  const { filter = '', sort = 'verdict', cursor = '' } = params;
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
  ['Streams', 'num', 'Open now, and ever'],
  ['Stuck'],
  ['Send window', '', 'What is left of it'],
  ['Receive window'],
  ['PING'],
  ['TCP'],
  ['Read', 'num'],
  ['Written', 'num'],
  ['Write blocked', 'num', 'For how long the socket has refused bytes'],
];

/** As many connections as the page shows; the rest is counted. */
const CONNECTIONS = 100;

function Connections({ connections }) {
  if (connections.length === 0) return html`<${Empty} title="No connection is open." />`;
  return html`<${Table} label="Connections" head=${HEAD_CONNECTIONS}>
      ${connections.slice(0, CONNECTIONS).map(({ counters, http2, verdicts = {}, ...connection }) => {
        const [send, receive] = windows({ id: `c${connection.id}`, of: http2 });
        const stuck = Object.entries(verdicts).filter(([kind]) => isAlarm(kind));
        return html`<tr key=${connection.id}>
        <td class="num">${connection.id}</td>
        <td><bdi>${connection.peer ? clean(connection.peer) : NONE}</bdi></td>
        <td>${connection.side}</td>
        <td class="num">${duration(connection.age_ns)}</td>
        <td class="num">${count(connection.streams)} <span class="dim">of ${count(connection.streams_total)}</span></td>
        <td>${stuck.length > 0 ? stuck.map(([kind, n]) => html`<a class="part warn" href=${link('streams', null, { filter: `connection:${connection.id} verdict:${kind}` })}>${count(n)} ${kind.replaceAll('_', ' ')}</a>`) : NONE}</td>
        <td>${send}</td>
        <td>${receive}</td>
        <td><${Ping} of=${http2} beat=${connection.heartbeat} /></td>
        <td><${Tcp} of=${connection.tcp} /></td>
        <td class="num">${bytes(counters?.read_bytes)}</td>
        <td class="num">${bytes(counters?.written_bytes)}</td>
        <td class="num">${counters?.write_blocked_ns > 0 ? html`<span class="warn"><${Shape} of="warning" /> ${duration(counters.write_blocked_ns)}</span>` : counters ? 'no' : '–'}</td>
      </tr>`;
      })}
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
  const meaning = PHASE[stream.phase]?.[2];
  const { wire } = stream;
  const { http2 } = data.connection ?? {};
  const [send, receive] = windows({ id: `s${stream.id}`, of: wire, initial: [http2?.peer_initial_window, http2?.local_initial_window] });
  const direction = (traffic) =>
    `${plural(traffic.messages, 'message')}, ${bytes(traffic.bytes)}, last ${ago(traffic.last_ago_ns)}${traffic.ended ? ', ended' : ''}`;
  return html`
    <${Kept} ...${answer} />
    <${Section} title=${`Stream ${stream.id}`} note=${html`<${Judged} verdict=${stream.verdict} sure /> for ${duration(stream.verdict?.since_ns)}`}
      actions=${html`<a class="button" href=${link('streams')}>All streams</a> ${!stream.status && html`<${LogButton} stream=${stream} /> `}<button type="button" onClick=${() => copy(heading(data.taken_at) + streamText(stream))}>Copy as text</button>`}>
      ${stream.verdict && html`<${Reason} verdict=${stream.verdict} />`}
      <${Facts} of=${[
        ['Method', html`<${Method} name=${stream.method} />`],
        ['Kind', KIND_OF_STREAM[stream.kind] ?? stream.kind],
        ['We are the', stream.side],
        ['Is now', html`<${PhaseTag} stream=${stream} /> for ${duration(stream.phase_ns)}`, meaning],
        ['HTTP/2 state', `${HTTP2[stream.state] ?? stream.state}${wire ? `, id ${wire.stream_id}` : ''}`],
        ...(wire ? [
          ['Send window', send],
          ['Receive window', receive],
          ['Not sent', bytes(Math.max(0, stream.sent.bytes - wire.data_sent)), 'In our buffers'],
          ['Not read', bytes(Math.max(0, wire.data_received - stream.received.bytes)), 'Come from the peer'],
        ] : []),
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
    ${stream.events?.length > 0 && html`<${Events} events=${stream.events} logged=${stream.logged} />`}
    ${data.findings.length > 0 && html`<${Section} title="Findings that name it"><${FindingList} findings=${data.findings} /><//>`}
    <${Section} title="Tasks it caused" note=${plural(data.tasks_total, 'live task')}>
      <${TaskRefs} tasks=${data.tasks} total=${data.tasks_total} />
    <//>
    ${data.connection && html`<${Section} title="Its connection"><${Connections} connections=${[data.connection]} /><//>`}
    ${Object.keys(stream.metadata).length > 0 && html`<${Section} title="Metadata" note="allow-listed keys only">
      <${Facts} of=${Object.entries(stream.metadata).map(([key, value]) => [clean(key), html`<bdi>${clean(value)}</bdi>`])} />
    <//>`}`;
}
