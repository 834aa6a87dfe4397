// What is wrong now; then the tasks, streams and workers, in short.

import { html } from '/vendor/preact.js';
import { copy, findingText, heading, reportText } from '../copy.js';
import { useData } from '../live.js';
import { count, plural } from '../format.js';
import { useCopier } from '../keys.js';
import { link } from '../route.js';
import { useApp } from '../state.js';
import { CoverageNote, Kept, Pending, Section } from '../ui.js';
import { Workers } from './blocked.js';
import { Findings } from './findings.js';
import { StreamTable } from './streams.js';
import { GroupTable } from './tasks.js';

const GROUPS = 12;
const STREAMS = 8;
/** Groups with a running member that come first, however small. */
const RUNNING = 4;

function useReport() {
  const { report } = useApp();
  const fetched = useData('/debug/findings');
  if (report && fetched.data && report.taken_at < fetched.data.taken_at) return fetched;
  return report ? { data: report, error: null } : fetched;
}

/** One task that does not come back must not hide behind a thousand that wait. */
function runningFirst(running, largest) {
  const whole = (group) => largest.find((one) => one.key === group.key) ?? group;
  const first = running.map(whole);
  return [...first, ...largest.filter((group) => !first.includes(group))];
}

export function Overview() {
  const report = useReport();
  const groups = useData('/debug/tasks', { group: 'stack', limit: GROUPS });
  const running = useData('/debug/tasks', { group: 'stack', filter: 'state:running', sort: 'wait', limit: RUNNING });
  const streams = useData('/debug/streams', { sort: 'verdict', filter: 'is:live', limit: STREAMS });
  const workers = useData('/debug/workers');
  useCopier((row) => {
    const finding = report.data?.findings.find((one) => one.id === row);
    return finding ? heading() + findingText(finding) : reportText(report.data);
  });
  const { counters } = useApp();
  const coverage = groups.data?.coverage ?? counters?.coverage;
  return html`
    <${Section} title="What is wrong now" actions=${html`<button type="button" onClick=${() => copy(reportText(report.data))}>Copy as text</button>`}>
      <${Pending} ...${report} what="the findings" />
      <${Kept} ...${report} />
      ${report.data && html`<${Findings} report=${report.data} />`}
    <//>
    <${Section} title="Tasks by stack" note=${coverage && `${count(coverage.alive)} alive, ${count(coverage.running)} running`}
      actions=${html`<a class="button" href=${link('tasks')}>All groups</a>`}>
      <${Pending} ...${groups} what="the tasks" />
      <${Kept} ...${groups} />
      ${groups.data && html`<${GroupTable} answer=${{ ...groups.data, groups: runningFirst(running.data?.groups ?? [], groups.data.groups) }} /><${CoverageNote} coverage=${groups.data.coverage} />`}
    <//>
    <${Section} title="Streams" note=${counters && `${plural(counters.streams, 'stream')} open on ${plural(counters.connections, 'connection')}`}
      actions=${html`<a class="button" href=${link('streams')}>All streams</a>`}>
      <${Pending} ...${streams} what="the streams" />
      <${Kept} ...${streams} />
      ${streams.data && html`<${StreamTable} answer=${streams.data} />`}
    <//>
    <${Section} title="Workers" actions=${html`<a class="button" href=${link('blocked')}>Blocked</a>`}>
      <${Pending} ...${workers} what="the workers" />
      ${workers.data && html`<${Workers} answer=${workers.data} />`}
    <//>`;
}
