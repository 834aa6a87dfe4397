// A small server with answers in the debug server's shape, for states that a
// healthy process cannot be brought into at will: a lost connection, a new
// boot id, 401, 429, no instrumentation, names that try to be code.
//
//   node test/fixture.mjs [port]     to work on the page without a process
//   node test/fixture.mjs --told     prints all answers, for the schema to check

import { createServer } from 'node:http';
import { gzipSync } from 'node:zlib';
import { assets, sent } from '../budget.mjs';

const POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";
const TYPES = { html: 'text/html; charset=utf-8', css: 'text/css; charset=utf-8', js: 'text/javascript; charset=utf-8' };
const S = 1_000_000_000;

/** Names that would run, or break the layout, were they not text. */
export const HOSTILE = [
  '<img src=x onerror=alert(1)>',
  '"><script>alert(1)</script>',
  "'-alert(1)-'",
  '{{constructor.constructor("alert(1)")()}}',
  'javascript:alert(1)',
  '\u202egnp.exe\u0000\u0007',
  '/pkg.Service/<svg onload=alert(1)>',
  'a'.repeat(3000),
  '</script><script>alert(1)</script>',
  '<iframe srcdoc="<script>alert(1)</script>"></iframe>',
  '<a href="javascript:alert(1)">Watch</a>',
  '<style>*{display:none}</style>',
  '<!--',
  '&lt;img src=x onerror=alert(1)&gt;',
  '${alert(1)}`${alert(1)}`',
  '__proto__',
  '%3Cscript%3Ealert(1)%3C/script%3E#/tasks?filter=%00',
  '\u2066\u200fnaem\u2069\u001b[2J\r\n',
  'Z' + '\u0301'.repeat(200),
  '\ud800 half a pair',
];

const location = (file, line, column = 9) => ({ file, line, column });
const frame = (fn, file, line, kind = 'user', inlined = false) => ({
  function: fn.split('::').slice(-2).join('::'),
  function_full: fn,
  location: location(file, line),
  kind,
  inlined,
  address: '0x4a31f0',
});

const TOKIO = '/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1/src';
const STD = '/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/std/src';
const blockedStack = {
  source: 'native',
  frames: [
    frame('__GI___clock_nanosleep', './time/clock_nanosleep.c', 78, 'runtime'),
    frame('std::thread::sleep', `${STD}/thread/functions.rs`, 313, 'runtime', true),
    frame('billing::charge_card', '/srv/build/billing/src/billing.rs', 88),
    frame('billing::service::charge::{{closure}}', '/srv/build/billing/src/service.rs', 141),
    frame('tonic::server::grpc::Grpc<T>::unary', '/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tonic-0.14.9/src/server/grpc.rs', 251, 'library'),
    frame('tokio::runtime::task::core::Core<T,S>::poll', `${TOKIO}/runtime/task/core.rs`, 365, 'runtime', true),
    frame('tokio::runtime::scheduler::multi_thread::worker::Context::run_task', `${TOKIO}/runtime/scheduler/multi_thread/worker.rs`, 601, 'runtime'),
  ],
  truncated: null,
};
const waitStack = (fn, file, line, inner = 'tokio::sync::mpsc::chan::Rx<T,S>::recv') => ({
  source: 'await',
  frames: [frame(inner, `${TOKIO}/sync/mpsc/chan.rs`, 301, 'runtime'), frame(fn, file, line), frame('hyper::server::conn::http2::serve', '/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/hyper-1.12.0/src/server/conn/http2.rs', 91, 'library')],
  truncated: null,
});
const waitOn = (kind, resource, holders = [], over = {}) => ({ kind, resource, detail: null, task: null, stream: null, deadline_in_ns: null, fd: null, holders, queue: null, senders: null, wait_ns: 30 * S, lower_bound: false, ...over });

/** Fields of `struct tcp_info` that the page does not show. */
const MORE = { congestion_state: 0, options: 0, send_window_scale: 0, recv_window_scale: 0, retransmit_timeout_ns: 0, ack_timeout_ns: 0, recv_mss: 0, sacked: 0, lost: 0, retransmitting: 0, fackets: 0, path_mtu: 0, recv_slow_start: 0, rtt_variation_ns: 0, send_slow_start: 0, congestion_window: 0, advertised_mss: 0, reordering: 0 };

/** The world that the fixture tells of; tests change it. */
export class World {
  constructor() {
    this.begun = Date.now();
    this.boot = 'f00dfeed12345678';
    this.pid = 4121;
    this.token = null;
    this.mode = 'sick'; // 'sick' | 'clear' | 'unattached'
    this.hostile = false;
    this.limited = false;
    this.down = false;
    this.silent = false;
    this.requests = [];
  }

  get age() {
    return (Date.now() - this.begun) * 1e6;
  }

  name(plain, index = 0) {
    return this.hostile ? HOSTILE[index % HOSTILE.length] : plain;
  }

  head() {
    return {
      schema: 1,
      taken_at: new Date().toISOString(),
      process: { name: this.name('billing-grpc'), pid: this.pid, boot_id: this.boot, build_id: null, executable: '/srv/billing-grpc', uptime_ns: 3 * 86_400 * S + this.age },
    };
  }

  coverage() {
    const alive = 100_019;
    if (this.mode === 'unattached') {
      return { alive, listed: 0, with_stack: 0, running: 0, dropped: 0, missing: [{ reason: 'no_tokio_unstable', count: alive, detail: 'built without --cfg tokio_unstable: tokio offers no task hooks' }] };
    }
    return {
      alive, listed: 99_990, with_stack: 61_211, running: 2, dropped: 0,
      missing: [
        { reason: 'no_hook', count: 29, detail: 'on a LocalSet, the root of a block_on, or spawned before the hooks' },
        { reason: 'no_await_chain', count: 38_779, detail: 'suspended tasks show where they were spawned' },
      ],
    };
  }

  task(id, over = {}) {
    return {
      id: String(id), parent: id > 20 ? '17' : null, runtime: '1', spawned_at: location('/srv/build/billing/src/feed.rs', 71),
      method: this.name('/billing.Feed/Watch', id), peer: this.name(`10.0.3.${id % 250}:51344`, id + 1), stream: String(id + 900), state: 'idle', worker: null,
      state_ns: 30 * S + this.age, age_ns: 60 * S + this.age, polls: 1200 + id, busy_ns: 41_000_000, longest_poll_ns: 1_900_000,
      stack: waitStack(this.name('feed::watch', id), this.name('/srv/build/billing/src/feed.rs', id), 112),
      wait: waitOn('mpsc_recv', null), branches: [], holds: [], unhooked: false, wakers: 1, joinable: false,
      ...over,
    };
  }

  /** One of two that hold what the other wants, with more than one branch. */
  locked() {
    const name = (text, index) => this.name(text, index);
    return this.task(17, {
      parent: null, method: '/billing.Ledger/Post', state_ns: 44 * S,
      stack: {
        source: 'await', truncated: null, or_one_of: [name('ledger::post_twin', 3)],
        frames: [
          frame('tokio::sync::batch_semaphore::Acquire::poll', `${TOKIO}/sync/batch_semaphore.rs`, 601, 'runtime'),
          frame('tokio::sync::mutex::Mutex<T>::lock', `${TOKIO}/sync/mutex.rs`, 433, 'runtime'),
          frame('ledger::post', '/srv/build/billing/src/ledger.rs', 204),
          frame('billing::service::post', '/srv/build/billing/src/service.rs', 88),
          ...Array.from({ length: 9 }, (_, i) => frame(`tower::layer::Layer${i}::call`, '/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tower-0.5.3/src/lib.rs', 10 + i, 'library')),
        ],
      },
      wait: waitOn('mutex', name('0x7f3a10', 2), [{ task: '23', local: name('journal', 1), location: location('/srv/build/billing/src/audit.rs', 77) }], { wait_ns: 41 * S, queue: 2 }),
      branches: [
        { dormant: false, wait: waitOn('sleep', null, [], { deadline_in_ns: 19 * S }), stack: waitStack('ledger::post', '/srv/build/billing/src/ledger.rs', 204, 'tokio::time::Sleep') },
        { dormant: true, wait: waitOn('semaphore', '0x7f3b00'), stack: waitStack(name('ledger::prefetch', 5), '/srv/build/billing/src/ledger.rs', 190, 'tokio::sync::Semaphore::acquire') },
      ],
      holds: [{ kind: 'mutex', resource: name('0x7f3a90', 4), local: name('accounts', 0), function: name('ledger::post', 6), location: location('/srv/build/billing/src/ledger.rs', 201), dormant: false, perhaps_dropped: false, backlog: null, within: null },
        { kind: 'mpsc_receiver', resource: '0x7f3c20', local: 'jobs', function: 'ledger::post', location: location('/srv/build/billing/src/ledger.rs', 198), dormant: false, perhaps_dropped: true, backlog: 4096, within: null }],
    });
  }

  blocker() {
    return this.task(40, { state: 'running', worker: 1, state_ns: 3.2 * S + this.age, stack: blockedStack, wait: null, method: '/billing.Charge/Card', busy_ns: 4 * S, longest_poll_ns: 3.2 * S, stream: '812' });
  }

  groups() {
    if (this.mode === 'unattached') return [];
    const group = (key, count, longest, task) => {
      const user = task.stack?.frames.find((one) => one.kind === 'user');
      return {
        key, count, function: user?.function ?? null, place: user?.location ?? task.spawned_at, waiting_in: task.stack?.frames[0].function ?? null,
        spawned_at: task.spawned_at, method: task.method, wait: task.wait?.kind ?? null, resource: task.wait?.resource ?? null, holder: task.wait?.holders[0]?.task ?? null, states: { scheduled: 0, running: 0, idle: 0, unknown: 0, [task.state]: count },
        oldest_ns: longest + S, longest_state_ns: longest, longest_wait_ns: longest, busy_ns: task.busy_ns * count, polls: task.polls * count, longest_poll_ns: task.longest_poll_ns,
        example_ids: Array.from({ length: Math.min(10, count) }, (_, i) => String(Number(task.id) + i)), stack: task.stack,
      };
    };
    return [
      group('g-watch', 61_210, 483 * S, this.task(1)),
      group('g-conn', 212, 200 * S, this.task(3, { stack: null, wait: null, method: null, spawned_at: location(`${TOKIO}/../../tonic-0.14.9/src/transport/server/mod.rs`.replace('/tokio-1.54.1/src/../..', ''), 812) })),
      group('g-block', 1, 3.2 * S + this.age, this.blocker()),
      group('g-cycle', 2, 41 * S, this.locked()),
      group('g-fresh', 7, 0.02 * S, this.task(4, { state: 'scheduled', stack: null, wait: null, method: '/billing.Charge/Card', spawned_at: location('src/service.rs', 97) })),
      ...Array.from({ length: 250 }, (_, i) => group(`g-${i}`, 640 - i, (300 - i) * S, this.task(100 + i, { stack: waitStack(this.name(`worker::step_${i}`, i), '/srv/build/billing/src/worker.rs', 40 + i) }))),
    ];
  }

  stream(id, over = {}) {
    return {
      id: String(id), side: 'server', method: this.name('/billing.Feed/Watch', id), kind: 'server_streaming', peer: this.name(`10.0.3.${id % 250}:51344`, id), connection: String(id % 9), task: String(id + 10),
      state: 'half_closed_remote', phase: 'await_send', phase_ns: 200 * S + this.age, age_ns: 900 * S,
      received: { messages: 1, bytes: 26, last_ago_ns: 900 * S, ended: true, body: 'end', body_ns: 900 * S }, sent: { messages: 20_410 + id, bytes: 9_213_004, last_ago_ns: 200 * S, ended: false, body: 'pending', body_ns: 200 * S },
      deadline: null, cancelled_ago_ns: null, cancel_reason: null, status: null, ended_ago_ns: null, live_tasks: 1, logged: false, metadata: {},
      throttled_ns: null, idle_expected: false, events: this.events(),
      wire: { stream_id: id * 2 + 1, opened: true, send_window: 0, recv_window: 65_509, data_sent: 9_200_000, data_received: 26, last_received_ago_ns: 14 * S, last_sent_ago_ns: 9 * S, window_update_ago_ns: 14 * S, send_window_closed_ns: 9 * S, end_sent: false, end_received: true, reset: null },
      verdict: this.verdict('peer_not_reading', 'peer', `The stream's window has been used up for 9.0s: the client does not read it; it last did 14s ago, and 13 KiB wait here; its transport answered 1.1s ago. ${this.name('', id)}`, { since_ns: 9 * S }),
      ...over,
    };
  }

  verdict(kind, who, evidence, over = {}) {
    return { kind, who, since_ns: 3.2 * S, confidence: 'proven', evidence, or: [], told_apart_by: null, hog: null, task: null, ...over };
  }

  events() {
    const event = (kind, ago, bytes = 0) => ({ kind, ago_ns: ago * S, bytes });
    return [event('recv', 24, 26), event('end_received', 24), ...[23, 22.6, 22, 21, 20.4, 19].map((ago, i) => event('send', ago, 300 << i)), event('window_closed', 18), event('window_received', 14, 32_768), event('send', 13.9, 16_384), event('send', 13.2, 16_384), event('window_closed', 9)];
  }

  streams() {
    return [
      this.stream(812, { method: '/billing.Charge/Card', kind: 'unary', phase: 'handler', phase_ns: 3.2 * S, deadline: { timeout_ns: 2 * S, remaining_ns: -1.2 * S }, verdict: this.verdict('worker_blocked', 'us', 'Its own task has been in one poll for 3.2s: charge_card (src/billing.rs:88).', { task: '40' }) }),
      ...Array.from({ length: 420 }, (_, i) => this.stream(900 + i)),
      this.stream(2000, { kind: 'bidi', phase: 'await_recv', method: '/grpc.examples.echo.Echo/BidirectionalStreamingEcho', deadline: { timeout_ns: 60 * S, remaining_ns: 41 * S }, wire: null, events: [], verdict: this.verdict('waiting_for_peer', 'peer', 'We have waited 41s for the client, after 3 of its messages; we spoke last, 41s ago.', { confidence: 'suspected', or: ['peer_frozen', 'network'], told_apart_by: 'a keepalive PING or a heartbeat' }) }),
      this.stream(2001, { kind: 'bidi', method: '/billing.Feed/Watch', verdict: this.verdict('connection_flow_control', 'peer', "The connection's window has been used up for 9.0s, the stream's own has 64 KiB left: 63 KiB of stream 901 (Feed/Watch) are not read by the peer.", { hog: '901', or: ['peer_frozen', 'network'], told_apart_by: 'a PING that is answered while the window is closed', confidence: 'likely' }) }),
    ];
  }

  connections() {
    const one = {
      id: '3', side: 'server', transport: 'tcp', local: '0.0.0.0:50051', peer: this.name('10.0.3.4:51344', 1), age_ns: 4000 * S, streams: 212, streams_total: 9000, task: '12', closed: false, tls: false, endpoint: '1',
      totals: { streams_succeeded: 8700, streams_failed: 88, messages_sent: 1_200_000, messages_received: 9_000, last_stream_ago_ns: S, last_sent_ago_ns: 9 * S, last_received_ago_ns: S },
      counters: { read_bytes: 12_002, written_bytes: 9_000_000_000, last_read_ago_ns: S, last_write_ago_ns: 200 * S, write_blocked_ns: 0 },
      http2: { send_window: 0, recv_window: 41_000, send_window_closed_ns: 9 * S, recv_window_closed_ns: null, peer_initial_window: 65_535, local_initial_window: 1_048_576, peer_max_streams: null, local_max_streams: 200, open_streams: 212, ping_outstanding_ns: null, ping_rtt_ns: 1_200_000, ping_answered_ago_ns: 1.1 * S, last_received_ago_ns: S, goaway: null, resets_received: 0, resets_sent: 0, lost: false, untracked: 0, pings_sent: 41 },
      tcp: { state: 1, retransmits: 0, probes: 0, backoff: 0, unacked: 2, notsent_bytes: 9_000, bytes_acked: 9_000_000_000, total_retransmits: 3, last_ack_ago_ns: S, last_data_received_ago_ns: S, last_data_sent_ago_ns: S, rtt_ns: 1_100_000, send_window: 64_000, recv_window: 64_000, send_mss: 1460, unread_bytes: 0, more: MORE },
      heartbeat: { interval_ns: S, outstanding_ns: null, rtt_ns: 900_000, answered_ago_ns: S },
      verdicts: { peer_not_reading: 210, connection_flow_control: 1, healthy: 1 }, send_hog: { stream: '901', unread_bytes: 64_000 }, recv_hog: null,
    };
    const dead = { ...one, id: '4', peer: '10.0.3.5:40112', streams: 1, verdicts: { network: 1 }, counters: { ...one.counters, write_blocked_ns: 4 * S }, http2: { ...one.http2, send_window: 60_000, send_window_closed_ns: null, ping_outstanding_ns: 5 * S }, tcp: { ...one.tcp, retransmits: 5, unacked: 9, last_ack_ago_ns: 5 * S } };
    const plain = { ...one, id: '5', transport: 'unix', peer: 'unix:pid=7', verdicts: {}, http2: null, tcp: null, heartbeat: null };
    return [one, dead, plain];
  }

  episodes() {
    if (this.mode !== 'sick') return [];
    const common = { runtime: '1', tid: 4130, task: '40', spawned_at: location('src/service.rs', 97), method: this.name('/billing.Charge/Card'), peer: this.name('10.0.3.4:51344', 1), stream: '812', stack_missing: null };
    return [
      { ...common, id: 9, worker: 1, ongoing: true, blocked_ns: 3.2 * S + this.age, ended_ago_ns: 0, queued_local: 60, queued_global: 1, stack: blockedStack },
      { ...common, id: 8, worker: 0, ongoing: false, blocked_ns: 0.4 * S, ended_ago_ns: 70 * S, queued_local: 2, queued_global: 0, stack: null, stack_missing: 'the thread had left the poll before it could be read' },
    ];
  }

  workers() {
    const sick = this.mode === 'sick';
    const worker = (index, over) => ({ runtime: '1', index, tid: 4129 + index, thread: this.name('tokio-rt-worker', index), state: 'parked', state_ns: 0.004 * S, task: null, method: null, polls: 1_209_334, busy_ns: 4000 * S, parks: 90_112, local_queue_depth: 0, blocked: false, stack: null, ...over });
    return {
      runtimes: [{ id: '1', name: this.name('main'), flavor: 'multi_thread', workers: 4, alive_tasks: 100_019, global_queue_depth: sick ? 1 : 0, spawned_tasks: 1_200_000, blocking_threads: 3, idle_blocking_threads: 2, blocking_queue_depth: 0, polls: 5_000_000, busy_ns: 9000 * S, parks: 400_000, steals: 2231, budget_forced_yields: 12, mean_poll_ns: 1_800 }],
      workers: [worker(0), worker(1, sick ? { state: 'polling', blocked: true, state_ns: 3.2 * S + this.age, task: '40', method: this.name('/billing.Charge/Card'), local_queue_depth: 60 } : {}), worker(2, { state: 'polling', task: '55', method: '/billing.Feed/Watch', state_ns: 40_000 }), worker(3, { state: 'searching' })],
    };
  }

  /** Of a snapshot, what comparing two does not look at. */
  rest() {
    const { counters } = this.counters();
    const plain = this.connections().map(({ verdicts, send_hog: _send, recv_hog: _recv, ...connection }) => connection);
    const streams = this.mode === 'unattached' ? [] : this.streams().map(({ verdict, ...stream }) => stream);
    return { counters, ...this.workers(), blocked: this.episodes(), pauses: [], endpoints: [], connections: plain, streams, ended_streams: [], history: { looks: 1, span_ns: 0, growing: [] }, blocked_threshold_ns: 100_000_000 };
  }

  report() {
    const kinds = ['blocked_worker', 'process_paused', 'stalled_stream', 'deadline_passed', 'cancelled_but_running', 'leaked_task', 'busy_task', 'registry_full'];
    const checked = kinds.map((kind, i) => ({ kind, examined: [4, 1, 422, 422, 422, 99_990, 99_990, 1][i], unavailable: null }));
    checked.push({ kind: 'deadlock', examined: 0, unavailable: 'the await chains of suspended tasks are not read' });
    const none = { place: null, method: null, tasks: [], streams: [], connections: [], worker: null, edges: [], count: 1 };
    const findings = this.mode !== 'sick' ? [] : [
      { ...none, id: 'blocked:9', kind: 'blocked_worker', severity: 'critical', confidence: 'proven', title: this.name(`Worker 1 blocked ${((3.2 * S + this.age) / S).toFixed(1)} s in one poll`), evidence: [this.name('thread::sleep, called from charge_card, keeps the worker in one poll of task 40.', 1), '61 tasks are queued behind it; 1 of 4 workers is affected.'], place: this.name('src/billing.rs:88'), method: this.name('/billing.Charge/Card', 6), since_ns: 3.2 * S + this.age, tasks: ['40'], streams: ['812'], worker: 1 },
      { ...none, id: 'deadlock:17', kind: 'deadlock', severity: 'critical', confidence: 'proven', title: 'Two tasks wait on each other: 17 → 23 → 17', evidence: ['Task 17 waits for a mutex lock (mutex 0x7f3a10) in ledger::post at src/ledger.rs:204 for 41s; task 23 holds it (local `journal` in write at src/audit.rs:77).', 'Task 23 waits for a mutex lock (mutex 0x7f3a90) in audit::write at src/audit.rs:77 for 43s; task 17 holds it (local `accounts` in post at src/ledger.rs:201).'], place: 'src/ledger.rs:204', method: '/billing.Ledger/Post', since_ns: 41 * S, count: 2, tasks: ['17', '23'],
        edges: [
          { waits: '17', kind: 'mutex', resource: this.name('0x7f3a10', 2), at: location(this.name('/srv/build/billing/src/ledger.rs', 4), 204), holder: '23', local: 'journal', held_at: location('/srv/build/billing/src/audit.rs', 77), dormant: false },
          { waits: '23', kind: 'mutex', resource: '0x7f3a90', at: location('/srv/build/billing/src/audit.rs', 77), holder: '17', local: 'accounts', held_at: location('/srv/build/billing/src/ledger.rs', 201), dormant: false },
        ] },
      { ...none, id: 'futurelock:31', kind: 'futurelock', severity: 'critical', confidence: 'proven', title: 'Task 31 waits for a mutex lock behind its own future that it no longer polls (cache::load) for 12s', evidence: ['Task 31 queued for the lock in a future that it keeps and does not poll: that one is served first and never gives it on.'], place: 'src/cache.rs:52', since_ns: 12 * S, tasks: ['31'],
        edges: [{ waits: '31', kind: 'mutex', resource: '0x7f3c00', at: location('src/cache.rs', 52), holder: '31', local: null, held_at: location('src/cache.rs', 19), dormant: true }] },
      { ...none, id: 'stalled:watch', kind: 'stalled_stream', severity: 'warning', confidence: 'likely', title: '212 streams wait for their clients to read', evidence: ['The transport has not asked for more for 3m20s, though messages are ready.', 'Whether the client or the network is slow, this side cannot tell; the client’s own dump can.'], method: '/billing.Feed/Watch', since_ns: 200 * S, count: 212, tasks: Array.from({ length: 100 }, (_, i) => String(910 + i)), streams: Array.from({ length: 100 }, (_, i) => String(900 + i)), connections: ['3'] },
      { ...none, id: 'leaked', kind: 'leaked_task', severity: 'info', confidence: 'suspected', title: '3 tasks outlive their stream', evidence: ['Their streams ended more than a minute ago.'], since_ns: 64 * S, count: 3, place: 'src/feed.rs:71', tasks: ['301', '302', '303'] },
    ];
    return { ...this.head(), coverage: this.coverage(), findings, checked };
  }

  counters() {
    const n = Math.floor(this.age / 1e8);
    const sick = this.mode === 'sick';
    return {
      ...this.head(),
      coverage: { ...this.coverage(), alive: 100_019 + (n % 17) },
      counters: { tasks_spawned: 1_200_000 + n * 13, tasks_ended: 1_099_981 + n * 13, tasks_dropped: 0, blocking_ended: 12, streams_started: 90_422 + n, streams_ended: 90_000 + n, streams_dropped: 0, blocked_polls: 9, pauses: 0, profiler_panics: 0, spans_exported: 0, spans_failed: 0, spans_dropped: 0 },
      states: { scheduled: 7, running: 2, idle: 99_981, unknown: 0 },
      streams: 422,
      phases: { await_send: 420, await_recv: 1, handler: 1 },
      connections: 9,
      workers: 4,
      workers_blocked: sick ? 1 : 0,
      busy_ns: 9000 * S,
      verdicts: { peer_not_reading: 420, waiting_for_peer: 1, worker_blocked: 1 },
      findings: sick ? { critical: 3, warning: 1, info: 1 } : {},
    };
  }
}

function page(list, query, noun) {
  const from = Number(query.get('cursor') || 0);
  const limit = Number(query.get('limit') || 200);
  const next = from + limit < list.length ? String(from + limit) : null;
  const totals = noun === 'groups' ? { groups_total: list.length } : {};
  return { total: list.length, matched: list.length, ...totals, next_cursor: next, [noun]: list.slice(from, from + limit) };
}

function answer(world, path, query) {
  const head = () => ({ ...world.head(), coverage: world.coverage() });
  const filter = query.get('filter') ?? '';
  const terms = filter.match(/(?:[^\s"]|"[^"]*")+/g) ?? [];
  const fits = (item) => terms.every((word) => /^(-|group:)/.test(word) || (word === 'state:running' ? item.state === 'running' || item.states?.running > 0 : JSON.stringify(item).includes(word.replace(/^[a-z]+:/, '').replaceAll('"', '').replace(/:\d+$/, ''))));
  const ref = ({ id, spawned_at, method, state, state_ns, wait }) => ({ id, spawned_at, method, state, state_ns, wait: wait?.kind ?? null });
  const member = /^\/debug\/(tasks|streams)\/(\d+)$/.exec(path);
  if (member) {
    const [, kind, id] = member;
    if (id === '404') return { status: 404, body: { error: `no live task ${id}` } };
    if (kind === 'streams') {
      const stream = world.streams().find((one) => one.id === id) ?? world.stream(Number(id));
      return { body: { ...head(), stream, connection: world.connections()[0], tasks_total: 1, tasks: [ref(world.task(Number(id) + 10))], findings: world.report().findings.filter((one) => one.streams.includes(id)) } };
    }
    const task = id === '40' ? world.blocker() : id === '17' ? world.locked() : world.task(Number(id));
    // A stream by itself has no verdict, which stands beside it.
    const { verdict, ...stream } = world.stream(812, { task: id });
    return { body: { ...head(), task, parent: task.parent ? ref(world.task(17)) : null, children_total: 2, children: [ref(world.task(41)), ref(world.task(42))], stream, verdict, blocked: world.episodes().filter((one) => one.task === id) } };
  }
  switch (path) {
    case '/debug/findings':
      return { body: world.report() };
    case '/debug/tasks':
      if (filter === 'age:nonsense') return { status: 400, body: { error: '`nonsense` is no duration', expected: 'age:>10s' } };
      if (query.get('group') === 'none') {
        const tasks = world.mode === 'unattached' ? [] : [world.blocker(), ...Array.from({ length: 450 }, (_, i) => world.task(i + 41))];
        return { body: { ...head(), ...page(tasks.filter(fits), query, 'tasks') } };
      }
      return { body: { ...head(), ...page(world.groups().filter(fits), query, 'groups') } };
    case '/debug/streams':
      return { body: { ...head(), ...page(world.mode === 'unattached' ? [] : world.streams().filter(fits), query, 'streams') } };
    case '/debug/connections':
      return { body: { ...head(), connections: world.connections() } };
    case '/debug/workers':
      return { body: { ...head(), ...world.workers(), blocked: world.episodes(), pauses: [{ paused_ns: 10 * S, ended_ago_ns: 700 * S }], blocked_threshold_ns: 100_000_000 } };
    case '/debug/snapshot':
      return { body: { ...head(), ...world.rest(), tasks: [world.blocker(), ...Array.from({ length: 450 }, (_, i) => world.task(i + 41, i % 2 ? {} : { spawned_at: location('src/even.rs', 3), stack: null }))] } };
    default:
      return { status: 404, body: { error: 'no such path' } };
  }
}

/** Starts the fixture; `world` is what it tells of. */
export async function start(port = 0) {
  const world = new World();
  const table = new Set(await assets());
  const open = new Set();
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://fixture');
    world.requests.push(request.url);
    if (world.down) return request.socket.destroy();
    const headers = { 'content-security-policy': POLICY, 'x-content-type-options': 'nosniff', 'cross-origin-resource-policy': 'same-origin', 'cache-control': 'no-store', 'referrer-policy': 'no-referrer' };
    const send = (status, body, more = {}) => {
      const text = typeof body === 'string' || body instanceof Buffer ? body : JSON.stringify(body);
      response.writeHead(status, { 'content-type': 'application/json', ...headers, ...more });
      response.end(text);
    };
    const host = (request.headers.host ?? '').replace(/:\d+$/, '');
    if (host !== '127.0.0.1' && host !== 'localhost') return send(421, { error: 'wrong host' });
    const file = url.pathname === '/' ? 'index.html' : url.pathname.slice(1);
    if (table.has(file)) return send(200, await sent(file), { 'content-type': TYPES[file.split('.').pop()] });
    if (world.limited) return send(429, 'too many requests\n', { 'retry-after': '1', 'content-type': 'text/plain' });
    if (world.token && request.headers.authorization !== `Bearer ${world.token}`) return send(401, 'send the token\n', { 'www-authenticate': 'Bearer', 'content-type': 'text/plain' });
    if (url.pathname === '/debug/events') {
      response.writeHead(200, { ...headers, 'content-type': 'text/event-stream' });
      const say = () => {
        if (world.silent) return;
        response.write(`event: findings\ndata: ${JSON.stringify(world.report())}\n\n`);
        response.write(`event: counters\ndata: ${JSON.stringify(world.counters())}\n\n`);
      };
      say();
      const timer = setInterval(say, 500);
      open.add(response);
      return request.on('close', () => (clearInterval(timer), open.delete(response)));
    }
    if (url.pathname === '/debug/log') {
      if (request.method !== 'POST') return send(405, { error: 'POST it' });
      return send(200, { on: url.searchParams.get('on') === 'true', streams: 1, stream: url.searchParams.get('stream'), method: null });
    }
    if (url.pathname === '/debug/pprof/goroutine') {
      const text = url.searchParams.get('debug') === '2';
      return send(200, text ? 'goroutine 40 [running]:\n' : gzipSync(Buffer.alloc(0)), { 'content-type': text ? 'text/plain; charset=utf-8' : 'application/octet-stream' });
    }
    const { status = 200, body } = answer(world, url.pathname, url.searchParams);
    send(status, body);
  });
  await new Promise((resolve) => server.listen(port, '127.0.0.1', resolve));
  return {
    world,
    url: `http://127.0.0.1:${server.address().port}`,
    streams: () => open.size,
    drop: () => open.forEach((response) => response.destroy()),
    stop: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** All that it tells, by the names that docs/schema.json has for it. */
function told() {
  const lines = [];
  for (const mode of ['sick', 'clear', 'unattached']) {
    const world = new World();
    world.mode = mode;
    const say = (name, value) => lines.push({ name, mode, value });
    const ask = (name, path) => {
      const url = new URL(path, 'http://fixture');
      say(name, answer(world, url.pathname, url.searchParams).body);
    };
    say('CountersEvent', world.counters());
    say('ProblemAnswer', answer(world, '/debug/tasks/404', new URLSearchParams()).body);
    ask('FindingsAnswer', '/debug/findings');
    ask('TaskGroupsAnswer', '/debug/tasks?group=stack');
    ask('TasksAnswer', '/debug/tasks?group=none');
    for (const id of [17, 40, 41]) ask('TaskAnswer', `/debug/tasks/${id}`);
    ask('StreamsAnswer', '/debug/streams');
    for (const id of [812, 901, 2000, 2001]) ask('StreamAnswer', `/debug/streams/${id}`);
    ask('ConnectionsAnswer', '/debug/connections');
    ask('WorkersAnswer', '/debug/workers');
    ask('Snapshot', '/debug/snapshot');
  }
  return lines;
}

if (process.argv[2] === '--told') {
  for (const line of told()) console.log(JSON.stringify(line));
} else if (process.argv[1] === new URL(import.meta.url).pathname) {
  const { url } = await start(Number(process.argv[2] ?? 6060));
  console.log(`fixture on ${url}`);
}
