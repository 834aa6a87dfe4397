// The model's closed sets of words, in the reader's language.

/** Kinds of finding: the word on the badge, and what was looked for. */
export const KIND = {
  blocked_worker: ['BLOCKED', 'workers that do not come back from a poll'],
  process_paused: ['PAUSED', 'the whole process standing still'],
  stalled_stream: ['STALLED', 'streams on which nothing moves'],
  deadline_passed: ['DEADLINE', 'streams that run past their deadline'],
  cancelled_but_running: ['CANCELLED', 'handlers that go on after a cancel'],
  leaked_task: ['LEAKED', 'tasks that outlive their stream'],
  busy_task: ['BUSY', 'tasks that hardly ever wait'],
  registry_full: ['FULL', 'bounds that keep tasks or streams out'],
  deadlock: ['DEADLOCK', 'tasks that wait on each other in a circle'],
  futurelock: ['FUTURELOCK', 'tasks that wait behind a future they no longer poll'],
  lock_convoy: ['CONVOY', 'locks that many wait for'],
  stuck_channel: ['CHANNEL', 'full channels that nobody empties'],
  unwakeable: ['UNWAKEABLE', 'tasks that nothing can wake'],
  growing_group: ['GROWING', 'groups of tasks that only grow'],
};

export const kindWord = (kind) => KIND[kind]?.[0] ?? kind.replaceAll('_', ' ').toUpperCase();
export const kindText = (kind) => KIND[kind]?.[1] ?? kind.replaceAll('_', ' ');

export const CONFIDENCE = {
  proven: ['proven', 'Follows from what was seen'],
  likely: ['likely', 'What was seen has hardly another cause'],
  suspected: ['suspected', 'It fits what was seen; other causes do too'],
};

/** Task states: the word, its tone, what it means. */
export const TASK_STATE = {
  running: ['running', 'ok', 'A worker is polling it now'],
  idle: ['idle', 'dim', 'Its last poll returned Pending; it waits to be woken'],
  scheduled: ['scheduled', 'warn', 'Spawned and waiting for its first poll'],
  unknown: ['unknown', 'dim', 'Alive, but its polls are not observed (no tokio_unstable)'],
};

/** What a stream is in now: the words, their tone, what it means. */
export const PHASE = {
  starting: ['starting', 'dim', 'Nobody has polled it yet'],
  handler: ['in handler', 'dim', 'The handler works, or waits on something other than this stream'],
  await_recv: ['waits to receive', 'dim', 'Waits for the next message, or the end, from the peer'],
  await_headers: ['waits for headers', 'dim', 'Waits for the response headers'],
  await_send: ['waits to send', 'warn', 'The peer or the network does not take what it has handed over'],
  await_produce: ['waits for handler', 'dim', 'The transport asks for the next message; the handler has none yet'],
  ended: ['ended', 'dim', 'Both directions are at their end'],
};

export const HTTP2 = {
  open: 'open',
  half_closed_local: 'half-closed (local)',
  half_closed_remote: 'half-closed (remote)',
  closed: 'closed',
  reset: 'reset',
};

export const KIND_OF_STREAM = {
  unary: 'unary',
  client_streaming: 'client streaming',
  server_streaming: 'server streaming',
  bidi: 'bidi',
  unknown: 'kind unknown',
};

export const WORKER_STATE = {
  polling: ['polling', 'ok'],
  searching: ['searching', 'dim'],
  parked: ['parked', 'dim'],
  unknown: ['unknown', 'dim'],
};

/** What a task waits for, where the word itself does not say it. */
const WAIT = {
  mutex: 'mutex lock',
  rw_lock_read: 'rwlock read',
  rw_lock_write: 'rwlock write',
  semaphore: 'semaphore acquire',
  mpsc_recv: 'chan receive',
  mpsc_send: 'chan send',
  oneshot: 'oneshot receive',
  notify: 'notified',
  watch: 'watch changed',
  broadcast: 'broadcast receive',
  barrier: 'barrier wait',
  once_cell: 'once cell init',
  socket_read: 'IO wait, read',
  socket_write: 'IO wait, write',
  grpc_message: 'gRPC message',
};

export const waitText = (kind) => WAIT[kind] ?? kind;
