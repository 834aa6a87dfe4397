// One task: what it does, who made it, whom it made, for which stream.

import { html } from '/vendor/preact.js';
import { copy, heading, taskText } from '../copy.js';
import { useData } from '../data.js';
import { clean, count, duration, percent, plural } from '../format.js';
import { useCopier } from '../keys.js';
import { link } from '../route.js';
import { CoverageNote, Empty, Facts, Kept, Method, Pending, Place, Section, Stack, StreamLink, TaskLink, TaskState } from '../ui.js';
import { waitText } from '../words.js';
import { StreamTable } from './streams.js';
import { TaskRefs } from './taskrefs.js';

function Wait({ wait }) {
  if (!wait) return null;
  return html`<p class="where">
    Waits in <code>${waitText(wait.kind)}</code>
    ${wait.resource && html`<span>on <code><bdi>${clean(wait.resource)}</bdi></code></span>`}
    <span>for ${wait.lower_bound ? 'at least ' : ''}${duration(wait.wait_ns)}</span>
    ${wait.queue !== null && wait.queue !== undefined && html`<span>${count(wait.queue)} in its queue</span>`}
    ${wait.detail && html`<span class="dim">${clean(wait.detail)}</span>`}
    ${wait.holders.map((holder) => html`<span key=${holder.task}>held by task <${TaskLink} id=${holder.task} /> ${holder.local && html`<code>${clean(holder.local)}</code>`} <${Place} at=${holder.location} /></span>`)}
  </p>`;
}

export function Task({ id }) {
  const answer = useData(`/debug/tasks/${encodeURIComponent(id)}`);
  const { data, error } = answer;
  const task = data?.task;
  useCopier(() => task && heading(data.taken_at) + taskText(task));
  if (error?.status === 404 && !data) {
    return html`<${Empty} title=${`Task ${clean(id)} is not alive.`}>It has ended, or it was never seen. <a href=${link('tasks')}>All tasks</a><//>`;
  }
  if (!task) return html`<${Pending} ...${answer} what=${`task ${clean(id)}`} />`;
  const { children } = data;
  return html`
    <${Kept} ...${answer} />
    ${error?.status === 404 && html`<p class="banner warn">This task has ended. Its last state is shown.</p>`}
    <${Section} title=${`Task ${task.id}`} note=${html`<${TaskState} state=${task.state} worker=${task.worker} /> for ${duration(task.state_ns)}`}
      actions=${html`<a class="button" href=${link('tasks')}>All tasks</a> <button type="button" onClick=${() => copy(heading(data.taken_at) + taskText(task))}>Copy as text</button>`}>
      <${Wait} wait=${task.wait} />
      <${Facts} of=${[
        ['Method', html`<${Method} name=${task.method} />`],
        ['Peer', task.peer && html`<bdi>${clean(task.peer)}</bdi>`],
        ['Stream', html`<${StreamLink} id=${task.stream} />`],
        ['Spawned at', task.spawned_at && html`<${Place} at=${task.spawned_at} />`],
        ['Spawned by', task.parent ? html`task <${TaskLink} id=${task.parent} />` : null],
        ['Age', duration(task.age_ns)],
        ['Polls', count(task.polls)],
        ['Busy', `${duration(task.busy_ns)} (${percent(task.busy_ns, task.age_ns)})`],
        ['Longest poll', duration(task.longest_poll_ns)],
      ]} />
    <//>
    <${Section} title="Stack">
      <${Stack} stack=${task.stack} missing=${task.state === 'running' ? 'it was between being seen running and having its thread read' : 'a suspended task’s await chain is not read'} />
    <//>
    ${data.stream && html`<${Section} title="Its stream"><${StreamTable} answer=${{ streams: [data.stream] }} /><//>`}
    ${data.parent && html`<${Section} title="Spawned by"><${TaskRefs} tasks=${[data.parent]} /><//>`}
    <${Section} title="Spawned by it" note=${plural(data.children_total, 'live task')}>
      ${children.length > 0 ? html`<${TaskRefs} tasks=${children} total=${data.children_total} />` : html`<${Empty} title="None alive." />`}
    <//>
    <${CoverageNote} coverage=${data.coverage} />`;
}
