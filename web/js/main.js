// Start: the header, one view, and what lies over them.

import { html, render, useEffect, useRef } from '/vendor/preact.js';
import { Header, Help, SignIn, startTheme } from './frame.js';
import { listen } from './keys.js';
import { start } from './live.js';
import { VIEWS, useRoute } from './route.js';
import { useApp } from './state.js';
import { Blocked } from './views/blocked.js';
import { Compare } from './views/compare.js';
import { Overview } from './views/overview.js';
import { Stream, Streams } from './views/streams.js';
import { Task, Tasks } from './views/tasks.js';
import { Timeline } from './views/timeline.js';

function View({ route }) {
  const { view, id, params } = route;
  switch (view) {
    case 'tasks':
      return id === null ? html`<${Tasks} params=${params} />` : html`<${Task} key=${id} id=${id} />`;
    case 'streams':
      return id === null ? html`<${Streams} params=${params} />` : html`<${Stream} key=${id} id=${id} />`;
    case 'blocked':
      return html`<${Blocked} />`;
    case 'timeline':
      return html`<${Timeline} />`;
    case 'compare':
      return html`<${Compare} />`;
    default:
      return html`<${Overview} />`;
  }
}

function Toast() {
  const { toast } = useApp();
  return html`<div class="toast" role="status">${toast}</div>`;
}

function App() {
  const route = useRoute();
  const main = useRef(null);
  const shown = useRef(null);
  const key = `${route.view}/${route.id ?? ''}`;
  useEffect(() => {
    const [, label] = VIEWS.find(([name]) => name === route.view);
    document.title = `${label}${route.id === null ? '' : ` ${route.id}`} · taskprof`;
    // Another view: the keyboard starts at its top. Not on the first look.
    if (shown.current !== null && shown.current !== key) {
      main.current.focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    shown.current = key;
  }, [key]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => (event.preventDefault(), main.current.focus())}>Skip to the view</a>
    <${Header} />
    <main id="main" tabindex="-1" ref=${main}><${View} route=${route} /></main>
    <${Help} />
    <${SignIn} />
    <${Toast} />`;
}

startTheme();
const root = document.querySelector('#app');
root.replaceChildren();
render(html`<${App} />`, root);
listen();
start();
