// Tasks by their most telling facts: parents, children, those of a stream.

import { html } from '/vendor/preact.js';
import { count, duration } from '../format.js';
import { Method, Place, Table, TaskLink, TaskState } from '../ui.js';

const HEAD = [['Task', 'num'], ['State'], ['For', 'num', 'Time in this state'], ['Spawned at'], ['Method']];

/** As many as the page shows; the rest is counted. */
const SHOWN = 100;

export function TaskRefs({ tasks, total = tasks.length }) {
  return html`<${Table} label="Tasks" head=${HEAD}>
      ${tasks.slice(0, SHOWN).map((task) => html`<tr key=${task.id}>
        <td class="num"><${TaskLink} id=${task.id} row /></td>
        <td><${TaskState} state=${task.state} /></td>
        <td class="num">${duration(task.state_ns)}</td>
        <td>${task.spawned_at ? html`<${Place} at=${task.spawned_at} />` : html`<span class="dim">not known</span>`}</td>
        <td><${Method} name=${task.method} /></td>
      </tr>`)}
    <//>
    ${total > SHOWN && html`<p class="pager">The oldest ${SHOWN} of ${count(total)}</p>`}`;
}
