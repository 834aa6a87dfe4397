// What lies over the page: the keys, and the question for the token.

import { html, useEffect, useRef, useState } from '/vendor/preact.js';
import { setToken } from './api.js';
import { HELP } from './keys.js';
import { reconnect } from './live.js';
import { set, useApp } from './state.js';

function Dialog({ title, onClose, children }) {
  const dialog = useRef(null);
  useEffect(() => {
    dialog.current.showModal();
    return () => dialog.current?.close();
  }, []);
  return html`<dialog ref=${dialog} aria-label=${title} onCancel=${(event) => (event.preventDefault(), onClose?.())}>
    <h2>${title}</h2>
    ${children}
  </dialog>`;
}

export function Help() {
  const { help } = useApp();
  if (!help) return null;
  const close = () => set({ help: false });
  return html`<${Dialog} title="Keys" onClose=${close}>
    <dl class="keys">
      ${HELP.map(([key, text]) => html`<div key=${key}><dt>${key.split('  ').map((one) => html`<kbd>${one}</kbd> `)}</dt><dd>${text}</dd></div>`)}
    </dl>
    <p class="actions"><button type="button" onClick=${close}>Close</button></p>
  <//>`;
}

export function SignIn() {
  const { connection, trouble } = useApp();
  const [value, setValue] = useState('');
  if (connection !== 'unauthorized') return null;
  const submit = (event) => {
    event.preventDefault();
    setToken(value.trim());
    setValue('');
    set({ connection: 'connecting', trouble: null });
    reconnect();
  };
  return html`<${Dialog} title="Token">
    <form onSubmit=${submit}>
      <p>This server answers only with its token. It is kept for this tab and sent in a header, never in an address.</p>
      ${trouble && html`<p class="banner crit" role="alert">${trouble}</p>`}
      <label class="token">Token <input type="password" name="token" autocomplete="off" required value=${value} onInput=${(event) => setValue(event.currentTarget.value)} /></label>
      <p class="actions"><button type="submit" class="primary">Sign in</button></p>
    </form>
  <//>`;
}
