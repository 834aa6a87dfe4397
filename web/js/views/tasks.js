// Tasks: grouped by stack, then the members of a group, then one of them.

import { html } from '/vendor/preact.js';
import { copy, heading, stackText, taskText } from '../copy.js';
import { useData } from '../live.js';
import { clean, count, duration, percent, plural } from '../format.js';
import { groupName, holdNote, ownCode, statesOf, statesText, waitOf, waited } from '../groups.js';
import { useCopier } from '../keys.js';
import { go, link } from '../route.js';
import {
  Choice, CoverageNote, Empty, Facts, Filter, Kept, Method, PAGE, Pager, Pending, Place, Section, Sorts, Stack,
  StreamLink, Table, TaskLink, TaskRefs, TaskState, unattached,
} from '../ui.js';
import { waitText } from '../words.js';
import { Episode } from './blocked.js';
import { StreamTable } from './streams.js';

const FILTER_HINT = 'recv state:idle age:>10s';
const SORTS = [['wait', 'longest in state'], ['age', 'oldest'], ['busy', 'most busy'], ['longest', 'longest poll']];
const SORTS_GROUPS = [['', 'most tasks'], ...SORTS];
const SORTS_TASKS = [['', 'id'], ...SORTS, ['polls', 'most polls']];

const HEAD_GROUPS = [
  ['Tasks', 'num'],
  ['State'],
  ['Longest', 'num', 'The longest wait of a member'],
  ['Waiting for', '', 'What it is, if all wait for one; else the innermost function'],
  ['Your code', '', "The innermost frame of the program's own code, or else where it was spawned"],
  ['Method'],
];

const HEAD_TASKS = [
  ['Task', 'num'],
  ['State'],
  ['For', 'num', 'Time in this wait or state'],
  ['Age', 'num'],
  ['Polls', 'num'],
  ['Busy', 'num', 'Time spent inside polls'],
  ['Longest poll', 'num'],
  ['Your code'],
  ['Method'],
];

/** The program's own code: function and line, as far as known. */
export function OwnCode({ name, at }) {
  if (!name && !at) return html`<span class="dim">not known</span>`;
  return html`<span class="own">${name ? html`<code class="fn"><bdi>${clean(name)}</bdi></code>` : html`<span class="dim">spawned at</span>`} ${at && html`<${Place} at=${at} />`}</span>`;
}

/** The states of a group's members; the most common one speaks. */
export function States({ group }) {
  const states = statesOf(group);
  if (states.length === 1) return html`<${TaskState} state=${states[0][0]} wait=${waitOf(group)} />`;
  return states.map(([state, n]) => html`<span key=${state} class="part">${count(n)} <${TaskState} state=${state} /></span>`);
}

/** The one thing, and who holds it; or the function they are in. */
export function WaitingFor({ group }) {
  const what = group.resource ?? group.waiting_in;
  return html`${what ? html`<code class="wait" title=${clean(what)}><bdi>${clean(what)}</bdi></code>` : html`<span class="dim">–</span>`}
    ${group.holder && html` <span class="held">held by <${TaskLink} id=${group.holder} /></span>`}`;
}

/** No rows: and why, since an absent instrument shows none either. */
function NoTasks({ answer, filter }) {
  if (unattached(answer.coverage)) {
    return html`<${Empty} tone="warn" title="Instrumentation is not attached: tasks are alive, but none can be listed.">
      ${count(answer.coverage.alive)} tasks are alive by the runtime's own count. Build with RUSTFLAGS="--cfg tokio_unstable" to list them.
    <//>`;
  }
  if (filter) return html`<${Empty} title="No task fits this filter." />`;
  return html`<${Empty} title="No task is alive." />`;
}

/** The members; one task alone, straight. */
function membersOf(group, filter) {
  if (group.count === 1 && group.example_ids.length === 1) return link('tasks', group.example_ids[0]);
  return link('tasks', null, { group: 'none', filter: `${filter} group:${group.key}`.trim() });
}

export function GroupTable({ answer, filter = '' }) {
  if (answer.groups.length === 0) return html`<${NoTasks} answer=${answer} filter=${filter} />`;
  return html`<${Table} label="Groups of tasks" head=${HEAD_GROUPS}>
    ${answer.groups.map(
      (group) => html`<tr key=${group.key}>
        <td class="num"><a data-row=${group.key} href=${membersOf(group, filter)}>${count(group.count)}</a></td>
        <td><${States} group=${group} /></td>
        <td class="num">${duration(group.longest_wait_ns)}</td>
        <td><${WaitingFor} group=${group} /></td>
        <td><${OwnCode} name=${group.function} at=${group.place} /></td>
        <td><${Method} name=${group.method} /></td>
      </tr>`,
    )}
  <//>`;
}

export function TaskTable({ answer, filter = '' }) {
  if (answer.tasks.length === 0) return html`<${NoTasks} answer=${answer} filter=${filter} />`;
  return html`<${Table} label="Tasks" head=${HEAD_TASKS}>
    ${answer.tasks.map(
      (task) => html`<tr key=${task.id}>
        <td class="num"><${TaskLink} id=${task.id} row /></td>
        <td><${TaskState} state=${task.state} worker=${task.worker} wait=${waitOf(task)} /></td>
        <td class="num">${duration(waited(task))}</td>
        <td class="num">${duration(task.age_ns)}</td>
        <td class="num">${count(task.polls)}</td>
        <td class="num">${duration(task.busy_ns)}</td>
        <td class="num">${duration(task.longest_poll_ns)}</td>
        <td><${OwnCode} name=${ownCode(task).name} at=${ownCode(task).location} /></td>
        <td><${Method} name=${task.method} /></td>
      </tr>`,
    )}
  <//>`;
}

export function groupText(group) {
  const wait = group.waiting_in ? ` in ${clean(group.waiting_in)}` : '';
  return `${plural(group.count, 'task')} [${statesText(group)}, longest ${duration(group.longest_wait_ns)}]${wait} ${groupName(group)}\n${stackText(group.stack)}`;
}

/** The list: groups, or tasks one by one. */
export function Tasks({ params }) {
  const grouped = params.group !== 'none';
  const { filter = '', sort = '', cursor = '' } = params;
  const answer = useData('/debug/tasks', {
    group: grouped ? 'stack' : 'none',
    filter,
    sort,
    limit: PAGE,
    cursor,
  });
  const { data } = answer;
  const change = (patch) => go(link('tasks', null, { ...params, cursor: null, ...patch }), { replace: true });
  const rows = data ? (grouped ? data.groups : data.tasks) : [];
  const write = grouped ? groupText : taskText;
  const text = (row) => heading(data?.taken_at) + rows.filter((one) => row === null || (one.key ?? one.id) === row).map(write).join('\n');
  useCopier((row) => data && text(row));
  return html`<${Section}
    title=${grouped ? 'Tasks by stack' : 'Tasks one by one'}
    note=${data && `${count(data.coverage.alive)} alive, ${count(data.coverage.running)} running`}
    actions=${html`<${Filter} value=${filter} placeholder=${FILTER_HINT} onInput=${(text) => change({ filter: text })} />
      <${Choice} label="Grouping" options=${[['stack', 'Grouped'], ['none', 'One by one']]} value=${grouped ? 'stack' : 'none'} onPick=${(group) => change({ group: group === 'none' ? 'none' : null, sort: null })} />
      <${Sorts} options=${grouped ? SORTS_GROUPS : SORTS_TASKS} value=${sort} onPick=${(key) => change({ sort: key })} />
      <button type="button" disabled=${!data} onClick=${() => copy(text(null))}>Copy as text</button>`}
  >
    <${Pending} ...${answer} what="the tasks" />
    <${Kept} ...${answer} />
    ${data && (grouped ? html`<${GroupTable} answer=${data} filter=${filter} />` : html`<${TaskTable} answer=${data} filter=${filter} />`)}
    ${data && html`<${Pager} view="tasks" params=${params} shown=${rows.length} total=${grouped ? data.groups_total : data.matched} next=${data.next_cursor} noun=${grouped ? 'groups' : 'tasks'} />
      <${CoverageNote} coverage=${data.coverage} />`}
  <//>`;
}

const Guard = ({ local, fn, at }) => html`${local && html` <code>${clean(local)}</code>`}${fn && html` in <code>${clean(fn)}</code>`} <${Place} at=${at} />`;

/** What is waited for and who has it. */
function Wait({ wait, word = 'Waits for' }) {
  if (!wait) return null;
  const due = wait.deadline_in_ns ?? null;
  return html`<p class="where">
    <span>${word} <b>${waitText(wait.kind)}</b>${wait.resource && html` <code><bdi>${clean(wait.resource)}</bdi></code>`}</span>
    ${(wait.wait_ns > 0 || !wait.lower_bound) && html`<span>for ${wait.lower_bound ? 'at least ' : ''}${duration(wait.wait_ns)}</span>`}
    ${wait.task && html`<span>of task <${TaskLink} id=${wait.task} /></span>`}
    ${wait.stream && html`<span>of stream <${StreamLink} id=${wait.stream} /></span>`}
    ${due !== null && html`<span>${due < 0 ? `due ${duration(-due)} ago` : `due in ${duration(due)}`}</span>`}
    ${wait.queue > 0 && html`<span>${count(wait.queue)} in its queue</span>`}
    ${wait.detail && html`<span class="dim"><bdi>${clean(wait.detail)}</bdi></span>`}
    ${wait.holders.slice(0, 8).map((holder) => html`<span key=${holder.task}>held by task <${TaskLink} id=${holder.task} /><${Guard} local=${holder.local} at=${holder.location} /></span>`)}
    ${wait.holders.length > 8 && html`<span>and ${count(wait.holders.length - 8)} more</span>`}
  </p>`;
}

/** What it holds; others wait for some of it. */
function Holds({ holds }) {
  if (!holds?.length) return null;
  return html`<ul class="plain">${holds.map((held, index) => html`<li key=${index}>Holds <code><bdi>${clean(held.resource)}</bdi></code>${holdNote(held)}<${Guard} local=${held.local} fn=${held.function} at=${held.location} /> <a href=${link('tasks', null, { group: 'none', filter: `resource:"${held.resource.replaceAll('"', '')}"` })}>who waits for it</a></li>`)}</ul>`;
}

/** What it does, who made it, whom it made, for which stream. */
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
    <${Section} title=${`Task ${task.id}`} note=${html`<${TaskState} state=${task.state} worker=${task.worker} wait=${waitOf(task)} /> for ${duration(waited(task))}`}
      actions=${html`<a class="button" href=${link('tasks')}>All tasks</a> <button type="button" onClick=${() => copy(heading(data.taken_at) + taskText(task))}>Copy as text</button>`}>
      <${Wait} wait=${task.wait} />
      <${Holds} holds=${task.holds} />
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
      ${task.branches?.map((branch, index) => html`<${Stack} key=${index} stack=${branch.stack} title=${branch.dormant ? 'Kept, but not polled' : 'Awaited at the same time'} />
        <${Wait} wait=${branch.wait} word=${branch.dormant ? 'Queued for' : 'Waits for'} />`)}
    <//>
    ${data.blocked.map((episode) => html`<${Episode} key=${episode.id} episode=${episode} />`)}
    ${data.stream && html`<${Section} title="Its stream"><${StreamTable} answer=${{ streams: [{ ...data.stream, verdict: data.verdict }] }} /><//>`}
    ${data.parent && html`<${Section} title="Spawned by"><${TaskRefs} tasks=${[data.parent]} /><//>`}
    <${Section} title="Spawned by it" note=${plural(data.children_total, 'live task')}>
      <${TaskRefs} tasks=${children} total=${data.children_total} />
    <//>
    <${CoverageNote} coverage=${data.coverage} />`;
}
