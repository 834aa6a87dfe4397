// Workers that do not come back from a poll, all workers, and pauses.

import { html } from '/vendor/preact.js';
import { copy, heading, stackText } from '../copy.js';
import { useData } from '../live.js';
import { ago, clean, count, duration, plural } from '../format.js';
import { userFrame } from '../groups.js';
import { useCopier } from '../keys.js';
import { useApp } from '../state.js';
import { Empty, Kept, Method, Pending, Place, Section, Shape, Stack, StreamLink, Table, Tag, TaskLink } from '../ui.js';
import { WORKER_STATE } from '../words.js';
import { FindingList } from './findings.js';

const HEAD_WORKERS = [
  ['Worker'],
  ['State'],
  ['For', 'num', 'Time in this state'],
  ['Polls now', '', 'The task it polls'],
  ['Method'],
  ['Own queue', 'num', 'Tasks in its own run queue'],
  ['Polls', 'num'],
  ['Busy', 'num'],
  ['Parks', 'num'],
];

const HEAD_RUNTIMES = [
  ['Runtime'],
  ['Workers', 'num'],
  ['Alive tasks', 'num'],
  ['Global queue', 'num'],
  ['Blocking threads', 'num', 'Idle of all'],
  ['Blocking queue', 'num'],
  ['Mean poll', 'num'],
  ['Steals', 'num'],
];

const thread = (worker) => `${clean(worker.thread ?? 'thread')} · tid ${worker.tid ?? '–'}`;

export function Workers({ answer }) {
  if (answer.workers.length === 0) {
    return html`<${Empty} tone="warn" title="No runtime is registered with the profiler." />`;
  }
  const several = answer.runtimes.length > 1;
  return html`<${Table} label="Workers" head=${HEAD_WORKERS}>
    ${answer.workers.map((worker) => {
      const [word, tone] = worker.blocked ? ['blocked', 'crit'] : (WORKER_STATE[worker.state] ?? [worker.state, 'dim']);
      const runtime = several && answer.runtimes.find((one) => one.id === worker.runtime);
      return html`<tr key=${`${worker.runtime}/${worker.index}`}>
        <td title=${thread(worker)}>${runtime ? `${clean(runtime.name)} ` : ''}${worker.index}</td>
        <td><${Tag} tone=${tone}>${worker.blocked && html`<${Shape} of="critical" /> `}${word}<//></td>
        <td class="num">${duration(worker.state_ns)}</td>
        <td><${TaskLink} id=${worker.task} /></td>
        <td><${Method} name=${worker.method} /></td>
        <td class="num">${count(worker.local_queue_depth)}</td>
        <td class="num">${count(worker.polls)}</td>
        <td class="num">${duration(worker.busy_ns)}</td>
        <td class="num">${count(worker.parks)}</td>
      </tr>`;
    })}
  <//>`;
}

function Runtimes({ runtimes }) {
  return html`<${Table} label="Runtimes" head=${HEAD_RUNTIMES}>
    ${runtimes.map(
      (runtime) => html`<tr key=${runtime.id}>
        <td>${clean(runtime.name)} <span class="dim">${runtime.flavor.replaceAll('_', ' ')}</span></td>
        <td class="num">${count(runtime.workers)}</td>
        <td class="num">${count(runtime.alive_tasks)}</td>
        <td class="num">${count(runtime.global_queue_depth)}</td>
        <td class="num">${count(runtime.idle_blocking_threads)} of ${count(runtime.blocking_threads)}</td>
        <td class="num">${count(runtime.blocking_queue_depth)}</td>
        <td class="num">${duration(runtime.mean_poll_ns)}</td>
        <td class="num">${count(runtime.steals)}</td>
      </tr>`,
    )}
  <//>`;
}

const queued = (episode) => episode.queued_global + (episode.queued_local ?? 0);

function episodeText(episode) {
  const task = episode.task ? `task ${episode.task}` : 'a task not known';
  return `worker ${episode.worker} (tid ${episode.tid}) ${episode.ongoing ? 'blocked for' : 'was blocked for'} ${duration(episode.blocked_ns)} in one poll of ${task}${episode.method ? ` ${clean(episode.method)}` : ''}, ${plural(queued(episode), 'task')} queued behind it\n${stackText(episode.stack)}`;
}

/** One poll that blocked a worker. */
export function Episode({ episode }) {
  const frame = userFrame(episode.stack);
  return html`<article class=${`episode ${episode.ongoing ? 'critical' : 'past'}`}>
    <header>
      <h3 tabindex="-1" data-row=${episode.id}>
        <${Shape} of=${episode.ongoing ? 'critical' : 'info'} />${' '}
        Worker ${episode.worker} ${episode.ongoing ? 'blocked for' : 'was blocked for'} ${duration(episode.blocked_ns)} in one poll
      </h3>
      <span class="push"></span>
      ${!episode.ongoing && html`<span class="dim">ended ${ago(episode.ended_ago_ns)}</span>`}
      <button type="button" onClick=${() => copy(heading() + episodeText(episode))}>Copy as text</button>
    </header>
    <p class="where">
      Task <${TaskLink} id=${episode.task} />
      ${episode.stream && html`<span>stream <${StreamLink} id=${episode.stream} /></span>`}
      ${episode.method && html`<${Method} name=${episode.method} />`}
      ${episode.peer && html`<span class="dim">peer <bdi>${clean(episode.peer)}</bdi></span>`}
      <span>${plural(queued(episode), 'task')} queued behind it</span>
    </p>
    ${frame && html`<p class="where">In <code class="fn">${clean(frame.function)}</code> <${Place} at=${frame.location} /></p>`}
    <details open=${episode.ongoing}>
      <summary>Stack of thread ${episode.tid}</summary>
      <${Stack} stack=${episode.stack} missing=${episode.stack_missing} />
    </details>
  </article>`;
}

export function Blocked() {
  const workers = useData('/debug/workers');
  const { data } = workers;
  const waits = useApp().report?.findings.filter((finding) => finding.edges?.length > 0) ?? [];
  const now = data?.blocked.filter((episode) => episode.ongoing) ?? [];
  const past = data?.blocked.filter((episode) => !episode.ongoing) ?? [];
  useCopier((row) => {
    const chosen = data?.blocked.filter((episode) => row === null || String(episode.id) === row) ?? [];
    return heading(data?.taken_at) + chosen.map(episodeText).join('\n');
  });
  if (!data) return html`<${Pending} ...${workers} what="the workers" />`;
  const threshold = data.blocked_threshold_ns ? `polls over ${duration(data.blocked_threshold_ns)}` : 'polls over the threshold';
  return html`
    <${Kept} ...${workers} />
    <${Section} title="Blocked now" note=${threshold}>
      ${now.length === 0 && html`<${Empty} title="No worker is blocked." />`}
      ${now.map((episode) => html`<${Episode} key=${episode.id} episode=${episode} />`)}
    <//>
    ${waits.length > 0 && html`<${Section} title="Who waits for whom"><${FindingList} findings=${waits} /><//>`}
    <${Section} title="Workers"><${Workers} answer=${data} /><//>
    <${Section} title="Runtimes"><${Runtimes} runtimes=${data.runtimes} /><//>
    <${Section} title="Blocked before" note="newest first">
      ${past.length === 0 && html`<${Empty} title="None kept." />`}
      ${past.map((episode) => html`<${Episode} key=${episode.id} episode=${episode} />`)}
    <//>
    ${data.pauses.length > 0 &&
    html`<${Section} title="Pauses" note="the whole process stood still: SIGSTOP, a debugger, sleep">
      <ul class="plain">${data.pauses.map((pause, index) => html`<li key=${index}>${duration(pause.paused_ns)} <span class="dim">ended ${ago(pause.ended_ago_ns)}</span></li>`)}</ul>
    <//>`}`;
}
