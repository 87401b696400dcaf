// The state of the page is its address: `#/PAGE?KEY=VALUE&...`. Whoever opens the address sees the same.
import { useEffect, useState } from './vendor/preact.js';

/** The state in the address: `page`, and the text of each key. */
export function read() {
  const [path, query = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const state = Object.fromEntries(new URLSearchParams(query));
  state.page = path || 'grid';
  return state;
}

/** The address of the current state with `changes`; a key of null or '' is left out. */
export function link(changes, from = read()) {
  const { page, ...state } = { ...from, ...changes };
  const query = new URLSearchParams();
  for (const key of Object.keys(state).sort()) {
    const value = state[key];
    if (value !== null && value !== undefined && value !== '') query.set(key, value);
  }
  const text = query.toString().replaceAll('%2C', ',');
  return `#/${page}${text && `?${text}`}`;
}

/** Changes the state. `replace`: the step back leads to the state before the last one. */
export function go(changes, replace = false) {
  const address = link(changes);
  if (address === location.hash) return;
  if (replace) {
    history.replaceState(null, '', address);
    dispatchEvent(new HashChangeEvent('hashchange'));
  } else {
    location.hash = address;
  }
}

/** The state, for a component that is drawn again when it changes. */
export function useAddress() {
  const [state, set] = useState(read);
  useEffect(() => {
    const change = () => set(read());
    addEventListener('hashchange', change);
    return () => removeEventListener('hashchange', change);
  }, []);
  return state;
}
